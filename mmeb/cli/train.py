"""`mmeb train`: fine-tune a model on MMEB-train."""

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmeb.cli.options import parse_options
from mmeb.errors import MmebError

if TYPE_CHECKING:
    from mmeb.training.recipe import Recipe

_EPILOG = (
    "With the hub out of reach, `mmeb train --adapter demo --data demo` trains a small model in minutes. "
    "The result is scored with `mmeb run --model OUTPUT`."
)
_LORA = {"lora_rank": "rank", "lora_alpha": "alpha", "lora_targets": "targets"}
# Flags that are settings of the recipe, and of the run, by the same name.
_RECIPE = ["model", "model_revision", "split", "limit", "steps", "batch_size", "sub_batch_size", "sub_batch_tokens"]
_RECIPE += ["learning_rate", "warmup_steps", "temperature", "seed", "dtype", "freeze_tower", "gradient_checkpointing"]
_RUN = ["save_every", "keep", "log_every", "eval_every", "eval_tasks", "eval_data", "eval_limit", "report_to"]
_RUN += ["workers", "skip_bad_rows", "resume", "fsdp", "deepspeed"]


class _Group(click.Group):
    """Keeps the arguments as they were given, for the model card."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.obj = shlex.join(["mmeb", "train", *args])
        return super().parse_args(ctx, args)


@click.group("train", cls=_Group, invoke_without_command=True, epilog=_EPILOG)
@click.option("--adapter", help="The family of the model to train; its recipe is the default of all settings.")
@click.option("--recipe", "recipe_name", help="Another recipe by name, phi35v-24gb say.")
@click.option("--config", type=click.Path(path_type=Path), help="A recipe as --show prints it.")
@click.option("--show", is_flag=True, help="Print the recipe as YAML, with what it needs and its sources, and stop.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained on what, and stop before weights are loaded.")
@click.option("--output", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/train/<recipe>]")
@click.option("--model", "--base", help="What to start from: a registered name, a hub id, a folder; a LoRA goes on.")
@click.option("--model-revision", help="Commit or branch of the model's repository.")
@click.option("--option", multiple=True, metavar="KEY=VALUE", help="An option of the adapter; may be repeated.")
@click.option("--data", default="hub", show_default=True, help="hub, demo, a folder, or .jsonl and .parquet files.")
@click.option("--revision", help="Commit or branch of the data repository; by default the published one.")
@click.option("--subsets", help="all, or names of training subsets, by commas.")
@click.option("--split", help="original or diverse_instruction.")
@click.option("--limit", type=int, help="At most so many rows of each subset, by chance.")
@click.option("--steps", type=int, help="Optimizer steps.")
@click.option("--batch-size", type=int, help="Pairs a step, over all processes.")
@click.option("--interleave", type=int, help="Make a batch of parts of so many pairs, each of one subset.")
@click.option("--sub-batch-size", type=int, help="Items that go through the model at once.")
@click.option("--sub-batch-tokens", type=int, help="Tokens that go through the model at once.")
@click.option("--learning-rate", type=float, help="The highest.")
@click.option("--warmup-steps", type=int, help="Steps up to the highest learning rate.")
@click.option("--temperature", type=float, help="Of the contrastive loss.")
@click.option("--seed", type=int, help="Of new weights, of the rows under a cap, of the order of the data.")
@click.option("--lora-rank", type=int, help="Rank of the LoRA.")
@click.option("--lora-alpha", type=int, help="Its scale, times the rank.")
@click.option("--lora-targets", help="Modules that get one, by commas: names or their last parts.")
@click.option("--freeze-tower/--train-tower", default=None, help="Leave the image tower as it is, or not.")
@click.option("--gradient-checkpointing/--no-gradient-checkpointing", default=None, help="Compute layers twice.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), help="auto is bfloat16 on a GPU.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting of the recipe.")
@click.option("--save-every", type=int, help="Steps between checkpoints.  [default: 200]")
@click.option("--keep", type=int, help="Checkpoints that stay.  [default: 2]")
@click.option("--log-every", type=int, help="Steps between lines of the log.  [default: 10]")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the output folder.")
@click.option("--eval-every", type=int, help="Score tasks every so many steps.")
@click.option("--eval-tasks", help="Which: as --tasks of `mmeb run`.  [default: ood]")
@click.option("--eval-data", help="On which data.  [default: demo with --data demo, else hub]")
@click.option("--eval-limit", type=int, help="Only the first N rows of each task.")
@click.option("--report-to", multiple=True, help="A tracker that the transformers Trainer knows; may be repeated.")
@click.option("--workers", type=int, help="Processes that decode and preprocess.  [default: by the cores]")
@click.option("--skip-bad-rows", is_flag=True, help="Count rows that can't be read, and go on.")
@click.option("--fsdp", type=click.Path(path_type=Path), help="A configuration of the Trainer's for FSDP.")
@click.option("--deepspeed", type=click.Path(path_type=Path), help="A configuration of DeepSpeed's.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Which kind.  [default: cuda where there is one]")
@click.option("--offline", is_flag=True, help="Let no call leave the machine.")
@click.pass_context
def command(context: click.Context, /, **given: Any) -> None:
    """Train a model on pairs of MMEB-train, contrastively.

    `--adapter NAME` is all it takes: the rest is that adapter's recipe, which `--show` prints.
    """
    if context.invoked_subcommand is not None:
        return
    given = {name: value for name, value in given.items() if value is not None and value != ()}
    from mmeb.training.recipes import NamedRecipe, find_recipe

    if "config" in given:
        from mmeb.training.recipe_file import read_recipe

        if "recipe_name" in given:
            raise MmebError("A recipe comes from --config or --recipe: leave one of them out.")
        recipe = read_recipe(given["config"])
        if given.get("adapter", recipe.adapter) != recipe.adapter:
            raise MmebError(f"{given['config']} is a recipe for {recipe.adapter}, not {given['adapter']}.")
        named = NamedRecipe(given["config"].stem, recipe)
    else:
        named = find_recipe(given.get("recipe_name"), given.get("adapter"))
    recipe = _changed(named.recipe, given)
    if given["show"]:
        from mmeb.training.recipe_file import to_yaml

        untouched = [name for name in named.sources if getattr(recipe, name) == getattr(named.recipe, name)]
        head = "" if "config" in given else named.head
        click.echo(to_yaml(recipe, head, {name: named.sources[name] for name in untouched}), nl=False)
        return
    place: dict[str, Any] = {name: given.get(name) for name in ("data", "revision", "device", "offline")}
    if given["dry_run"]:
        from mmeb.training.run import prepare

        click.echo(str(prepare(recipe, **place, skip_bad_rows=given["skip_bad_rows"], weights=False)))
        return

    # Read where torch is imported: each process would warn that no weight was left out of its first batch.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from mmeb.training.run import is_first, run
    from mmeb.training.settings import RunSettings

    chosen = {name: given[name] for name in _RUN if name in given}
    chosen.setdefault("eval_data", "demo" if given["data"] == "demo" else "hub")
    settings = RunSettings(given.get("output", Path("runs/train") / named.name), **chosen)
    outcome = run(recipe, settings, **place, command=context.obj)
    if not is_first():
        return
    if outcome.skipped_rows:
        click.echo(f"Rows left out for an image that can't be read, each time one was drawn: {outcome.skipped_rows:,}.")
    loss = f"Loss {outcome.log[-1]['loss']:.3f} after {outcome.steps} steps. " if outcome.log else ""
    click.echo(f"{loss}Model: {settings.output}\nScore it: mmeb run --model {settings.output}")


@command.command("merge")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The folder for the merged model.")
@click.option("--device", help="cpu, cuda, …  [default: cuda where there is one]")
@click.option("--dtype", help="Of the merged weights.  [default: float32 on the CPU, bfloat16 on a GPU]")
@click.option("--offline", is_flag=True, help="Let no call leave the machine.")
def merge_command(run: Path, output: Path, device: str | None, dtype: str | None, offline: bool) -> None:
    """Write a LoRA and its base as one model, and prove that it embeds the same.

    RUN is a run's folder, or one of its checkpoints.
    """
    from mmeb.training.merge import merge

    difference = merge(run, output, device=device, dtype=dtype, offline=offline)
    click.echo(f"The largest difference of an embedding's component is {difference:.1e}. Merged model: {output}")


def _changed(recipe: "Recipe", given: dict[str, Any]) -> "Recipe":
    """The recipe with what the flags say, `--set` last."""
    from mmeb.training.recipe_file import with_setting

    changes = {name: given[name] for name in _RECIPE if name in given}
    if "model" in given and given["model"] != recipe.model:
        changes.setdefault("model_revision", None)
    if "subsets" in given:
        changes["subsets"] = tuple(name.strip() for name in given["subsets"].split(",") if name.strip())
    if "interleave" in given:
        changes |= {"batches": "interleaved", "interleave": given["interleave"]}
    if "option" in given:
        changes["options"] = {**recipe.options, **parse_options(given["option"])}
    shape = {setting: given[flag] for flag, setting in _LORA.items() if flag in given}
    if "targets" in shape:
        shape["targets"] = tuple(name.strip() for name in shape["targets"].split(",") if name.strip())
    if shape:
        if recipe.lora is None:
            from mmeb.training.recipe import LoraSettings

            if "targets" not in shape:
                raise MmebError("The recipe trains all weights: name --lora-targets to train a LoRA instead.")
            changes["lora"] = LoraSettings(**shape)
        else:
            changes["lora"] = replace(recipe.lora, **shape)
    recipe = replace(recipe, **changes)
    for pair in given.get("settings", ()):
        recipe = with_setting(recipe, pair)
    return recipe
