"""The model card that lies beside a trained model's weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData
from jinja2 import Environment, StrictUndefined
from tabulate import tabulate

from mmeb.training.recipe import RunSettings

_TEMPLATE = Path(__file__).with_name("card.jinja")


def model_card(manifest: Mapping[str, Any], settings: RunSettings, scores: Sequence[Mapping[str, float]]) -> str:
    """A README.md with the hub's front matter, from a run's manifest and the scores that it logged, by step."""
    rows = [
        (part["subset"], part["pairs"], _place(part["repository"]), part["revision"] or "", part["fingerprint"][:16])
        for part in manifest["data"]
    ]
    environment = Environment(trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        front_matter=_front_matter(manifest).to_yaml(),
        name=settings.output.resolve().name,
        start=_place(manifest["base"] or "random weights"),
        manifest=manifest,
        recipe=manifest["recipe"],
        data=tabulate(rows, headers=("subset", "pairs", "from", "revision", "fingerprint"), tablefmt="github"),
        scores=_scores(scores) if scores else "",
        settings=settings,
        recipe_yaml=yaml.safe_dump(manifest["recipe"], sort_keys=False).rstrip(),
    )


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


def _scores(scores: Sequence[Mapping[str, float]]) -> str:
    tasks = [name for name in scores[-1] if name.startswith("eval/")]
    rows = [(line["step"], *(100 * line[task] for task in tasks if task in line)) for line in scores]
    headers = ("step", *(task.removeprefix("eval/") for task in tasks))
    return tabulate(rows, headers=headers, tablefmt="github", floatfmt=".1f")


def _hub_id(source: str | None) -> str | None:
    """The id of a repository on the hub; None for a folder and for what is bundled."""
    is_id = source is not None and source.count("/") == 1 and " " not in source and not Path(source).is_absolute()
    return source if is_id else None


def _place(repository: str) -> str:
    """A folder by its name alone: where it lies on this machine concerns nobody else."""
    return Path(repository).name if Path(repository).is_absolute() else repository
