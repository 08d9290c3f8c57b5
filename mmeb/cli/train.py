"""`mmeb train`: fine-tune a model on MMEB-train."""

from pathlib import Path

import click


@click.command("train", epilog="The result is scored with `mmeb run --model OUTPUT --adapter demo`.")
@click.option("--adapter", type=click.Choice(["demo"]), required=True, help="The family of the model to train.")
@click.option("--model", help="The model to start from: a name or a folder.  [default: random weights]")
@click.option("--data", default="demo", show_default=True, help="demo, or a folder that holds MMEB-train.")
@click.option("--subsets", default="all", show_default=True, help="all, or names of MMEB-train subsets, by commas.")
@click.option("--split", default="original", show_default=True, help="original or diverse_instruction.")
@click.option("--limit", type=click.IntRange(min=1), help="So many pairs of each subset, chosen by the seed.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The folder for the trained model.")
@click.option("--steps", default=3000, show_default=True, help="Optimizer steps.")
@click.option("--batch-size", default=32, show_default=True, help="Pairs a step, all of one subset.")
@click.option("--learning-rate", default=1e-3, show_default=True, help="The highest; cosine down to 0.")
@click.option("--warmup-steps", default=100, show_default=True, help="Steps up to the highest learning rate.")
@click.option("--temperature", default=0.07, show_default=True, help="Of the contrastive loss.")
@click.option("--seed", default=0, show_default=True, help="Of the initial weights and the order of the data.")
def command(
    adapter: str,
    model: str | None,
    data: str,
    subsets: str,
    split: str,
    limit: int | None,
    output: Path,
    steps: int,
    batch_size: int,
    learning_rate: float,
    warmup_steps: int,
    temperature: float,
    seed: int,
) -> None:
    """Train a model on pairs of MMEB-train, contrastively, with in-batch negatives."""
    from mmeb.training.config import TrainConfig
    from mmeb.training.run import train_demo

    config = TrainConfig(
        output=output,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        temperature=temperature,
        split=split,
        seed=seed,
    )
    loss = train_demo(config, data, subsets, limit, model, progress=True)
    click.echo(f"Loss {loss:.3f} at the end. Model: {output}")
