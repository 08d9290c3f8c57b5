"""`mmeb train`: fine-tune a model on MMEB-train."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mmeb.cli.options import ADAPTER_OPTIONS, DATA_REVISION, OFFLINE
from mmeb.errors import MmebError

_EPILOG = (
    "With the hub out of reach, `mmeb train --adapter demo --data demo` trains a small model in minutes. "
    "The result is scored with `mmeb run --model OUTPUT`; `mmeb train merge RUN --output DIR` writes a LoRA and its "
    "base as one model."
)
# Flags for settings of the recipe: flag, setting, type, help. Without help it is hidden: KEY=VALUE sets it as well.
_RECIPE = (
    ("--model --base", "model", str, "What to start from: a registered name, a hub id, a folder; a LoRA is resumed."),
    ("--model-revision", "model_revision", str, "Commit or branch of the model's repository."),
    ("--subsets", "subsets", str, "all, or names of training subsets, by commas."),
    ("--limit", "limit", int, "Maximum rows of each subset, drawn by chance."),
    ("--steps", "steps", int, "Optimizer steps."),
    ("--batch-size", "batch_size", int, "Pairs a step, over all processes."),
    ("--lr --learning-rate", "learning_rate", float, "The highest."),
    ("--seed", "seed", int, "Of new weights, of the rows under --limit, of the order of the data."),
    ("--split", "split", str, ""),
    ("--interleave", "interleave", int, ""),
    ("--sub-batch-size", "micro_batch_size", int, ""),
    ("--sub-batch-tokens", "micro_batch_tokens", int, ""),
    ("--warmup-steps", "warmup_steps", int, ""),
    ("--temperature", "temperature", float, ""),
    ("--lora-rank", "lora.rank", int, ""),
    ("--lora-alpha", "lora.alpha", int, ""),
    ("--lora-targets", "lora.targets", str, ""),
    ("--freeze-tower/--train-tower", "freeze_tower", bool, ""),
    ("--gradient-checkpointing/--no-gradient-checkpointing", "gradient_checkpointing", bool, ""),
    ("--dtype", "dtype", str, ""),
)
# Flags for `RunSettings`, by the same names.
_RUN = (
    ("--save-every", "save_every", int, "Steps between checkpoints.  [default: 200]"),
    ("--keep", "keep", int, "Checkpoints that stay.  [default: 2]"),
    ("--log-every", "log_every", int, "Steps between lines of the log.  [default: 10]"),
    ("--resume", "resume", bool, "Go on from the last checkpoint in the output folder."),
    ("--eval-every", "eval_every", int, "Score tasks every so many steps."),
    ("--eval-tasks", "eval_tasks", str, "Which: as --tasks of `mmeb run`.  [default: ood]"),
    ("--eval-data", "eval_data", str, "On which data.  [default: demo with --data demo, else hub]"),
    ("--eval-limit", "eval_limit", int, "Only the first N rows of each task."),
    ("--workers", "workers", int, "Processes that decode and preprocess.  [default: by the cores]"),
    ("--skip-bad-rows", "skip_bad_rows", bool, "Count rows that can't be read, and go on."),
    ("--fsdp", "fsdp", click.Path(path_type=Path), ""),
    ("--deepspeed", "deepspeed", click.Path(path_type=Path), ""),
)


class _Command(click.Command):
    """Keeps the arguments as they were given, for the model card; `merge` in front of them is another command."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] == ["merge"]:
            return merge_command.make_context(f"{info_name} merge", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, obj=shlex.join(["mmeb", "train", *args]), **extra)

    def invoke(self, ctx: click.Context) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


def _settings_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    for declaration, name, kind, text in reversed((*_RECIPE, *_RUN)):
        is_flag = kind is bool and "/" not in declaration
        function = click.option(
            *declaration.split(),
            _parameter(name),
            type=None if is_flag else kind,
            is_flag=is_flag or None,
            default=None,
            help=text,
            hidden=not text,
        )(function)
    return function


def _parameter(setting: str) -> str:
    return setting.replace(".", "_")


@click.command("train", cls=_Command, epilog=_EPILOG)
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--adapter", help="The family of the model to train; its recipe is the default of all settings.")
@click.option("--recipe", "recipe_name", help="Another recipe, phi35v-24gb say, or a YAML file as --show prints it.")
@click.option("--config", type=click.Path(path_type=Path), hidden=True)
@click.option("--show", is_flag=True, help="Print the recipe as YAML, with what it needs and its sources, and stop.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained on what, and stop before weights are loaded.")
@click.option("--output", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/train/<recipe>]")
@ADAPTER_OPTIONS
@click.option("--data", default="hub", show_default=True, help="hub, demo, a folder, or .jsonl and .parquet files.")
@DATA_REVISION
@_settings_flags
@click.option("--set", "set_", multiple=True, metavar="KEY=VALUE", hidden=True)
@click.option("--report-to", multiple=True, help="A tracker, such as tensorboard or wandb; may be repeated.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Which kind.  [default: cuda where there is one]")
@OFFLINE
@click.pass_context
def command(
    context: click.Context,
    /,
    settings: tuple[str, ...],
    adapter: str | None,
    recipe_name: str | None,
    config: Path | None,
    show: bool,
    dry_run: bool,
    output: Path | None,
    options: dict[str, str],
    data: str,
    revision: str | None,
    set_: tuple[str, ...],
    report_to: tuple[str, ...],
    device: str | None,
    offline: bool,
    **flags: Any,
) -> None:
    """Train a model on pairs of MMEB-train, contrastively.

    `--adapter NAME` is all it takes: the rest is that adapter's recipe, which `--show` prints. KEY=VALUE changes any
    setting of it: `mmeb train --adapter phi35v batch_size=512 lora.rank=16`.
    """
    from mmeb.training.recipe import RunSettings, changed, find_recipe, read_settings

    if config is not None and recipe_name is not None:
        raise MmebError("A recipe comes from --config or --recipe: leave one of them out.")
    named = find_recipe(config or recipe_name, adapter)
    changes = {name: flags[_parameter(name)] for _, name, _, _ in _RECIPE if flags[_parameter(name)] is not None}
    if changes.get("model", named.recipe.model) != named.recipe.model:
        changes.setdefault("model_revision", None)
    if "interleave" in changes:
        changes["batches"] = "interleaved"
    changes |= {f"options.{name}": value for name, value in options.items()}
    recipe = changed(named.recipe, changes | read_settings((*set_, *settings)))
    if show:
        click.echo(named.show(recipe), nl=False)
        return
    place: dict[str, Any] = {"data": data, "revision": revision, "device": device, "offline": offline}
    if dry_run:
        from mmeb.training.run import prepare

        click.echo(str(prepare(recipe, **place, skip_bad_rows=bool(flags["skip_bad_rows"]), weights=False)))
        return

    # Read where torch is imported: each process would warn that no weight was left out of its first batch.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from mmeb.training.run import is_first, run

    how = {name: flags[name] for _, name, _, _ in _RUN if flags[name] is not None}
    how.setdefault("eval_data", "demo" if data == "demo" else "hub")
    run_settings = RunSettings(output or Path("runs/train") / named.name, report_to=report_to, **how)
    outcome = run(recipe, run_settings, **place, command=context.obj)
    if not is_first():
        return
    if outcome.skipped_rows:
        click.echo(f"Rows skipped for an image that can't be read, each time one was drawn: {outcome.skipped_rows:,}.")
    loss = f"Loss {outcome.log[-1]['loss']:.3f} after {outcome.steps} steps. " if outcome.log else ""
    click.echo(f"{loss}Model: {run_settings.output}\nScore it: mmeb run --model {run_settings.output}")


@click.command("merge")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The folder for the merged model.")
@click.option("--device", help="cpu, cuda, …  [default: cuda where there is one]")
@click.option("--dtype", help="Of the merged weights.  [default: float32 on the CPU, bfloat16 on a GPU]")
@OFFLINE
def merge_command(run: Path, output: Path, device: str | None, dtype: str | None, offline: bool) -> None:
    """Write a LoRA and its base as one model, and prove that it embeds the same.

    RUN is a run's folder, or one of its checkpoints.
    """
    from mmeb.training.merge import merge

    difference = merge(run, output, device=device, dtype=dtype, offline=offline)
    click.echo(f"The largest difference of an embedding's component is {difference:.1e}. Merged model: {output}")
