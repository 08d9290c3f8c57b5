"""The model card that lies beside a trained model's weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData
from tabulate import tabulate

from mmeb.training.recipe import RunSettings


def model_card(manifest: Mapping[str, Any], settings: RunSettings, scores: Sequence[Mapping[str, float]]) -> str:
    """A README.md with the hub's front matter, from a run's manifest and the scores that it logged, by step."""
    name = settings.output.resolve().name
    parts = [
        f"---\n{_front_matter(manifest).to_yaml()}\n---",
        f"# {name}",
        _introduction(manifest),
        "## Use",
        _use(name),
        "## Training",
        _training(manifest),
        "## Data",
        _data(manifest["data"]),
    ]
    if scores:
        parts += ["## Scores while training", _scores(settings, scores)]
    parts += ["## Recipe", f"```yaml\n{yaml.safe_dump(manifest['recipe'], sort_keys=False).rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _front_matter(manifest: Mapping[str, Any]) -> ModelCardData:
    base, is_lora = _hub_id(manifest["base"]), manifest["recipe"]["lora"] is not None
    repositories = {_hub_id(part["repository"]) for part in manifest["data"] if part["kind"] == "hub"}
    fields: dict[str, Any] = {
        "base_model": base,
        "base_model_relation": base and ("adapter" if is_lora else "finetune"),
        "datasets": sorted(each for each in repositories if each) or None,
        "library_name": "peft" if is_lora else None,
        "pipeline_tag": "feature-extraction",
        "tags": ["mmeb", "multimodal-embedding", manifest["adapter"]],
    }
    return ModelCardData(**{name: value for name, value in fields.items() if value})


def _introduction(manifest: Mapping[str, Any]) -> str:
    start = _place(manifest["base"] or "random weights")
    revision = f" (revision `{manifest['base_revision']}`)" if manifest["base_revision"] else ""
    what = "A LoRA adapter over" if manifest["recipe"]["lora"] else "A multimodal embedding model, fine-tuned from"
    share = manifest["trained_parameters"] / manifest["parameters"]
    return (
        f"{what} `{start}`{revision}, trained contrastively on MMEB-train with `mmeb`: "
        f"{manifest['trained_parameters']:,} of {manifest['parameters']:,} parameters ({share:.2%})."
    )


def _use(name: str) -> str:
    return (
        f"```bash\nmmeb run --model ./{name} --tasks all\n```\n\n"
        "```python\nimport mmeb\n\n"
        f'model = mmeb.load_model("./{name}")\n'
        'item = mmeb.Item(prompt="<|image_1|>\\nRepresent the given image.\\n", image="cat.png")\n'
        "vectors = mmeb.encode(model, [item])\n"
        "```\n\n"
        "The options with which it was trained are in `mmeb.json`, and are taken from there."
    )


def _training(manifest: Mapping[str, Any]) -> str:
    recipe = manifest["recipe"]
    command = f"```bash\n{manifest['command']}\n```\n\n" if manifest["command"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in manifest["libraries"].items())
    temperature = f"{'learned temperature' if recipe['learn_temperature'] else 'temperature'} {manifest['temperature']}"
    return (
        f"{command}{recipe['steps']:,} steps of {recipe['batch_size']:,} pairs, InfoNCE at {temperature}, learning "
        f"rate {recipe['learning_rate']}, {recipe['schedule']}, {recipe['warmup_steps']:,} steps to warm up, seed "
        f"{recipe['seed']}.\n\nLibraries: {versions}."
    )


def _data(data: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (part["subset"], part["pairs"], _place(part["repository"]), part["revision"] or "", part["fingerprint"][:16])
        for part in data
    ]
    return tabulate(rows, headers=("subset", "pairs", "from", "revision", "fingerprint"), tablefmt="github")


def _scores(settings: RunSettings, scores: Sequence[Mapping[str, float]]) -> str:
    tasks = [name for name in scores[-1] if name.startswith("eval/")]
    rows = [(line["step"], *(100 * line[task] for task in tasks if task in line)) for line in scores]
    headers = ("step", *(task.removeprefix("eval/") for task in tasks))
    limit = f", the first {settings.eval_limit} queries of each task" if settings.eval_limit else ""
    table = tabulate(rows, headers=headers, tablefmt="github", floatfmt=".1f")
    return f"hit@1 in percent on the data `{settings.eval_data}`{limit}.\n\n{table}"


def _hub_id(source: str | None) -> str | None:
    """The id of a repository on the hub; None for a folder and for what is bundled."""
    is_id = source is not None and source.count("/") == 1 and " " not in source and not Path(source).is_absolute()
    return source if is_id else None


def _place(repository: str) -> str:
    """A folder by its name alone: where it lies on this machine concerns nobody else."""
    return Path(repository).name if Path(repository).is_absolute() else repository
