"""Steps per second and peak memory beside sentence-transformers with its cached in-batch loss.

Same weights, same photographs from the same files, same batches in the same order, AdamW with the same settings, all
weights trained in float32; the tools take turns, each run a process of its own that prepares its batches itself
(or has `--workers` do so). Ours
is `mmeb.training.loop.train`; the other is `SentenceTransformerTrainer` with `CachedMultipleNegativesRankingLoss`,
whose `mini_batch_size` is our micro-batch size: `Transformer` and `Normalize` for CLIP, with its `Pooling("lasttoken")`
between them for Qwen2-VL, whose chat template is set to write a message as the prompt alone.

A pair is a photograph (for Qwen2-VL with a question) and a text. In `distinct` batches nothing repeats; in `classes`
the texts are a few class names, as in the benchmark's classification tasks. `items` counts what goes through the model
in a step's forward passes, the second ones included: ours are fewer, since an item that repeats is encoded once and
the last micro-batch goes through once only.

That both do the same is checked: `agreement` is the least cosine of an item's vector with ours before the first step,
after the mean over all items is taken off; `loss off by` is the largest difference of a step's loss from ours.

    python -m benchmarks.training.speed [--json FILE]         # fetches the peer first: benchmarks/support/peers.py
    python -m benchmarks.training.speed --no-peers
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.support.figures import json_option, show
from benchmarks.support.peak_memory import watch
from benchmarks.support.peers import add_peers, agreement
from benchmarks.support.training_pairs import (
    QUESTION,
    first_step,
    read_rows,
    recipe_of,
    save_nothing,
    start,
    write_model,
    write_pairs,
)
from mmeb.data.train.dataset import open_train
from mmeb.evaluation.encode import encode
from mmeb.training.loop import train
from mmeb.training.recipe import RunSettings
from mmeb.training.sampler import batches_of

PROBES = 8  # pairs whose vectors are compared
ANSWERS = {"distinct": None, "classes": 16}
# A message becomes the image's tokens and the text, and nothing else.
PROMPT_ALONE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image_pad|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


class Run(NamedTuple):
    """What one process is to do; strings on its command line."""

    tool: str
    adapter: str
    model: Path
    pairs: Path
    batch_size: int
    micro_batch_size: int
    steps: int
    workers: int
    output: Path

    @property
    def recipe(self) -> Any:
        # One more step than is measured: the first warms up.
        return recipe_of(self.adapter, self.model, self.batch_size, self.micro_batch_size, self.steps + 1)


def ours(run: Run) -> dict[str, Any]:
    model, subsets = start(run.recipe, run.pairs)
    probes = [item for pair in subsets[0][:PROBES] for item in (pair.query, pair.positives[0])]
    np.save(run.output / "vectors.npy", encode(model, probes, workers=0))
    settings = RunSettings(run.output / "run", log_every=1, save_every=None, workers=run.workers, progress=False)
    outcome = train(model, subsets, run.recipe, settings, save_nothing)
    step = first_step(model, subsets, run.recipe)
    items = 2 * step.plan.pairing.n_items - sum(len(each.positions) for each in step.plan.passes[-1])
    return {"losses": [line["loss"] for line in outcome.log], "items": items}


def sentence_transformers(run: Run) -> dict[str, Any]:
    add_peers()
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from torch.utils.data import SequentialSampler

    recipe = run.recipe
    transformer = Transformer(str(run.model))
    modules: list[Any] = [transformer, Normalize()]
    if run.adapter == "qwen2-vl":
        transformer.processor.chat_template = PROMPT_ALONE
        modules.insert(1, Pooling(transformer.get_embedding_dimension(), "lasttoken"))
    model = SentenceTransformer(modules=modules, device="cpu")

    def query(row: dict[str, str]) -> dict[str, str]:
        image = {"image": str(run.pairs.parent / row["qry_image_path"])}
        return image if run.adapter == "clip" else image | {"text": QUESTION}

    rows = read_rows(run.pairs)
    probes = [side for row in rows[:PROBES] for side in (query(row), row["pos_text"])]
    np.save(run.output / "vectors.npy", np.stack([model.encode([probe])[0] for probe in probes]))
    batches = batches_of(open_train(run.pairs), recipe)
    drawn = [rows[row] for step in range(recipe.steps) for _, row in batches[step]]
    data = Dataset.from_dict({"query": [query(row) for row in drawn], "positive": [row["pos_text"] for row in drawn]})

    def in_order(dataset: Dataset, **options: Any) -> DefaultBatchSampler:
        return DefaultBatchSampler(SequentialSampler(dataset), **options)

    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(run.output / "run"),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        batch_sampler=in_order,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        seed=recipe.seed,
        use_cpu=True,
        dataloader_num_workers=run.workers,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )
    loss = CachedMultipleNegativesRankingLoss(
        model, scale=1 / recipe.temperature, mini_batch_size=recipe.micro_batch_size
    )
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return {"losses": losses, "items": 2 * 2 * recipe.batch_size}


TOOLS: dict[str, Callable[[Run], dict[str, Any]]] = {"mmeb": ours, "sentence-transformers": sentence_transformers}


def measured(run: Run) -> dict[str, Any]:
    """Train in this process: losses, items of a step, and the seconds from one optimizer step to the next."""
    ends: list[float] = []
    register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    said = TOOLS[run.tool](run)
    return {**said, "seconds": np.diff(ends).tolist()}


def compare(name: str, kind: str, tools: list[str], run: Run, turns: int) -> list[dict[str, Any]]:
    """A row for each tool; `run.output` is where their runs are written."""
    runs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
    for turn in range(turns):
        for tool in tools:
            output = run.output / f"{tool}-{turn}"
            output.mkdir(parents=True)
            arguments = run._replace(tool=tool, output=output)
            watched = watch("benchmarks.training.speed", *arguments)
            said = json.loads(watched.output.splitlines()[-1])
            runs[tool].append({**said, "gib": watched.gib, "vectors": np.load(output / "vectors.npy")})
    seconds = {tool: statistics.median([took for one in runs[tool] for took in one["seconds"]]) for tool in tools}
    base = runs["mmeb"][0]
    return [
        {
            "model": name,
            "batches": kind,
            "tool": tool,
            "steps/s": 1 / seconds[tool],
            "times mmeb's": seconds[tool] / seconds["mmeb"],
            "peak GiB": statistics.median([one["gib"] for one in runs[tool]]),
            "items": runs[tool][0]["items"],
            "agreement": agreement(runs[tool][0]["vectors"], base["vectors"]),
            "loss off by": max(abs(np.subtract(runs[tool][0]["losses"], base["losses"]))),
        }
        for tool in tools
    ]


@click.command(help=__doc__)
@json_option
@click.option("--batch-size", default=32, show_default=True, help="Pairs in a batch.")
@click.option("--micro-batch-size", default=8, show_default=True, help="Items in a micro-batch.")
@click.option("--steps", default=3, show_default=True, help="Steps of a run that are measured.")
@click.option("--turns", default=2, show_default=True, help="Runs of each tool.")
@click.option("--workers", default=0, show_default=True, help="Processes that prepare batches, for each tool.")
@click.option("--peers/--no-peers", default=True)
@click.option("--models", default="clip/small,qwen2-vl/small", show_default=True)
@click.option("--batches", default="distinct,classes", show_default=True, help="Which kinds of batches.")
@click.option("--run", nargs=9, type=(str, str, Path, Path, int, int, int, int, Path), hidden=True)
def main(
    json_file: Path | None,
    batch_size: int,
    micro_batch_size: int,
    steps: int,
    turns: int,
    workers: int,
    peers: bool,
    models: str,
    batches: str,
    run: tuple[str, str, Path, Path, int, int, int, int, Path] | None,
) -> None:
    if run is not None:
        print(json.dumps(measured(Run(*run))))
        return
    if peers:
        add_peers()
    tools = list(TOOLS) if peers else ["mmeb"]
    figures = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in models.split(","):
            adapter, model = write_model(Path(temporary), name)
            question = "" if adapter == "clip" else QUESTION
            for kind in batches.split(","):
                place = Path(temporary, f"{adapter}-{kind}")
                count = batch_size * (steps + 1)
                pairs = write_pairs(place, count, answers=ANSWERS[kind], question=question)
                to_do = Run("", adapter, model, pairs, batch_size, micro_batch_size, steps, workers, place / "runs")
                figures += compare(name, kind, tools, to_do, turns)
    show(figures, json_file, peers=["sentence-transformers"] if peers else [])


if __name__ == "__main__":
    main()
