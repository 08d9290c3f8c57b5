"""Prove on fixed items that a model embeds as it should, before a long run is spent on it."""

import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.evaluation import probes
from mmeb.evaluation.reference import Reference
from mmeb.evaluation.sanity import COLLAPSED, mean_pairwise_cosine
from mmeb.models.base import EmbeddingModel

Vectors = NDArray[np.float32]

# How much an embedding may change with its batch. In float32 by coordinate; rounding to 8 or 11 bits adds up over the
# layers in another order for every shape of a batch, so there it is 1 - cosine.
FLOAT32_DIFFERENCE = 1e-5
REDUCED_PRECISION_DISTANCE = {torch.bfloat16: 1e-3, torch.float16: 1e-4}
UNIT_NORM = {torch.bfloat16: 1e-2, torch.float16: 1e-3}  # of vectors that were normalised in this dtype
UNIT_NORM_FLOAT32 = 1e-5
MATTERS = 1e-4  # a coordinate changes by this where text or image is another one; what is not seen changes nothing
REFERENCE_COSINE = 0.99


@dataclass(frozen=True)
class Check:
    """One property that was checked: what was measured, what is required, and the item where it was worst."""

    name: str
    passed: bool
    measured: float
    required: str
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """What `verify_model` found. `vectors` (n, dim) are those of the probes, each embedded alone."""

    model: str
    dtype: str
    device: str
    checks: tuple[Check, ...]
    seconds: float
    vectors: Vectors

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def table(self) -> str:
        """One line for each check, and the verdict."""
        rows = [
            (check.name, "pass" if check.passed else "FAIL", f"{check.measured:.3g}", check.required, check.detail)
            for check in self.checks
        ]
        header = ("check", "", "measured", "required", "where it is worst")
        failed = sum(not check.passed for check in self.checks)
        verdict = f"{failed} of {len(self.checks)} checks failed" if failed else "every check passed"
        return (
            f"{self.model} in {self.dtype} on {self.device}, {len(self.vectors)} items\n\n"
            f"{tabulate(rows, header, disable_numparse=True)}\n\n{verdict} in {self.seconds:.1f} s"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values; a figure that is not finite is null."""
        checks = [asdict(check) | {"measured": _number(check.measured)} for check in self.checks]
        plain = {"model": self.model, "dtype": self.dtype, "device": self.device, "passed": self.passed}
        return plain | {"items": len(self.vectors), "seconds": round(self.seconds, 3), "checks": checks}


def verify_model(model: EmbeddingModel, reference: Reference | None = None) -> Verdict:
    """Embed the probes alone, together, in another order and beside a longer neighbour, and check the vectors.

    Raises MmebError where the reference is of another model, and where the vectors have not the model's `dim`.
    """
    if reference is not None:
        reference.require(model)
    started = time.perf_counter()
    items = probes.probes()
    alone = _embed(model, items, [[name] for name in items])
    groups = _groups(model, items)
    checks = [
        *_sound(model, alone),
        _unmoved("same again", model, alone, _embed(model, items, [[group[0]] for group in groups])),
        _unmoved("batch size", model, alone, _embed(model, items, groups)),
        _unmoved("order", model, alone, _embed(model, items, [group[::-1] for group in groups])),
        _unmoved("padding", model, alone, _embed(model, items, _with_longer_neighbour(model, items, groups))),
        *_sensitive(alone),
    ]
    if reference is not None:
        checks.append(_like_reference(alone, reference))
    seconds = time.perf_counter() - started
    vectors = np.stack(list(alone.values()))
    return Verdict(model.name, _dtype(model), str(model.device), tuple(checks), seconds, vectors)


def quick_check(model: EmbeddingModel) -> dict[str, Any]:
    """The cheap part, for the start of a run: seven items, each alone and in one batch with others of its group.

    Returns the figures for the run's provenance. Raises MmebError with the first thing that is wrong.
    """
    started = time.perf_counter()
    items = {name: probes.probes()[name] for name in probes.QUICK}
    alone = _embed(model, items, [[name] for name in items])
    together = _embed(model, items, _groups(model, items))
    checks = [*_sound(model, alone), _unmoved("batch size", model, alone, together), *_sensitive(alone)]
    for check in checks:
        if not check.passed:
            raise MmebError(
                f"{model.name} fails the check before the run, so that no score is made of it: {check.name}: measured "
                f"{check.measured:.3g}, required {check.required} ({check.detail}); `mmeb verify` shows all checks."
            )
    figures = {check.name: check.measured for check in checks}
    return {"items": len(items), **figures, "seconds": round(time.perf_counter() - started, 3)}


def _embed(model: EmbeddingModel, items: Mapping[str, Item], batches: Iterable[Sequence[str]]) -> dict[str, Vectors]:
    """Vectors (dim,) by name, embedded in just these batches."""
    vectors: dict[str, Vectors] = {}
    for names in batches:
        batch = model.preprocess([items[name] for name in names])
        try:
            with torch.inference_mode():
                embedded = model.embed(batch.to(model.device)).float().cpu().numpy()
        except torch.OutOfMemoryError:
            raise MmebError(
                f"There is not enough memory on {model.device} for a batch of {len(names)} items."
            ) from None
        if embedded.shape != (len(names), model.dim):
            raise MmebError(f"{model.name} makes {embedded.shape} of {len(names)} items, its dim being {model.dim}.")
        vectors |= dict(zip(names, embedded, strict=True))
    return vectors


def _groups(model: EmbeddingModel, items: Mapping[str, Item]) -> list[list[str]]:
    """The names of items that may share a batch."""
    groups: dict[Hashable, list[str]] = {}
    for name, item in items.items():
        groups.setdefault(model.group(item), []).append(name)
    return list(groups.values())


def _with_longer_neighbour(
    model: EmbeddingModel, items: Mapping[str, Item], groups: list[list[str]]
) -> list[list[str]]:
    """Of each group the cheapest item beside the costliest: the most padding that a batch can bring it."""
    ranked = [sorted(group, key=lambda name: model.cost(items[name])) for group in groups]
    return [[group[0], group[-1]] for group in ranked if len(group) > 1]


def _sound(model: EmbeddingModel, vectors: Mapping[str, Vectors]) -> list[Check]:
    """Finite, of length 1, and not all the same."""
    stacked = np.stack(list(vectors.values()))
    broken = [name for name, vector in vectors.items() if not np.isfinite(vector).all()]
    norms = {name: abs(float(np.linalg.norm(vector)) - 1) for name, vector in vectors.items()}
    worst, off = _worst(norms)
    with np.errstate(invalid="ignore"):
        cosine = mean_pairwise_cosine(stacked / np.linalg.norm(stacked, axis=1, keepdims=True))
    assert cosine is not None  # there are many probes
    allowed = UNIT_NORM.get(model.dtype, UNIT_NORM_FLOAT32)
    return [
        Check("finite", not broken, len(broken), "0 items not finite", ", ".join(broken[:3])),
        Check("unit norm", off <= allowed, off, f"off by ≤ {allowed:g}", worst),
        Check("distinct", cosine <= COLLAPSED, cosine, f"mean cosine ≤ {COLLAPSED}", "between all items"),
    ]


def _unmoved(name: str, model: EmbeddingModel, alone: Mapping[str, Vectors], now: Mapping[str, Vectors]) -> Check:
    """Whether vectors are the same as of an item that is embedded alone."""
    differences = {key: float(np.abs(vector - alone[key]).max()) for key, vector in now.items()}
    bound = REDUCED_PRECISION_DISTANCE.get(model.dtype)
    if bound is None:
        worst, difference = _worst(differences)
        return Check(name, difference <= FLOAT32_DIFFERENCE, difference, f"moves by ≤ {FLOAT32_DIFFERENCE:g}", worst)
    worst, distance = _worst({key: 1 - _cosine(vector, alone[key]) for key, vector in now.items()})
    detail = f"{worst}; by coordinate at most {_worst(differences)[1]:.2g}"
    return Check(name, distance <= bound, distance, f"1 − cosine ≤ {bound:g}", detail)


def _sensitive(vectors: Mapping[str, Vectors]) -> list[Check]:
    """Whether text and image each change the vector, where nothing else differs."""
    asked = {
        "text matters": probes.TEXT_PAIR,
        "image matters": probes.IMAGE_PAIR,
        "text beside an image matters": probes.TEXT_BESIDE_IMAGE_PAIR,
        "image beside a text matters": probes.IMAGE_BESIDE_TEXT_PAIR,
    }
    checks = []
    for name, (first, second) in asked.items():
        moved = float(np.abs(vectors[first] - vectors[second]).max())
        checks.append(Check(name, moved >= MATTERS, moved, f"moves by ≥ {MATTERS:g}", f"{first} / {second}"))
    return checks


def _like_reference(vectors: Mapping[str, Vectors], reference: Reference) -> Check:
    saved = dict(zip(vectors, reference.vectors, strict=True))
    worst, distance = _worst({name: 1 - _cosine(vector, saved[name]) for name, vector in vectors.items()})
    difference = max(float(np.abs(vector - saved[name]).max()) for name, vector in vectors.items())
    cosine = 1 - distance
    detail = "; ".join([worst, f"by coordinate at most {difference:.2g}", *reference.changed])
    return Check("reference", cosine >= REFERENCE_COSINE, cosine, f"cosine ≥ {REFERENCE_COSINE}", detail)


def _worst(figures: Mapping[str, float]) -> tuple[str, float]:
    """The largest figure and whose it is; NaN is the worst of all."""
    name = max(figures, key=lambda key: np.inf if np.isnan(figures[key]) else figures[key])
    return name, figures[name]


def _cosine(one: Vectors, other: Vectors) -> float:
    with np.errstate(invalid="ignore"):  # a zero vector is like nothing: NaN fails every bound
        return float(np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other)))


def _number(figure: float) -> float | None:
    return figure if np.isfinite(figure) else None


def _dtype(model: EmbeddingModel) -> str:
    return str(model.dtype).removeprefix("torch.")
