"""What `verify` and the check before a run let pass, and what each check is there to catch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.evaluation import probes
from mmeb.evaluation.reference import load_reference, save_reference
from mmeb.evaluation.verify import quick_check, verify_model
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.models.checkpoints.checkpoint import Checkpoint

DIM = 24


class ByteModel(EmbeddingModel):
    """A model of two small towers: the masked mean of a text's bytes, and a thumbnail; fused by adding them up."""

    adapter = "bytes"
    module: nn.ModuleDict

    def __init__(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.name, self.dim, self.device, self.dtype = "bytes", DIM, torch.device("cpu"), dtype
        self.module = nn.ModuleDict({"text": nn.Embedding(257, DIM), "image": nn.Linear(192, DIM)}).to(dtype)

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device | str, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        return cls(dtype)

    def preprocess(self, items: Sequence[Item]) -> Batch:
        texts = [torch.tensor([*item.text.encode()], dtype=torch.long) + 1 for item in items]
        inputs = {"ids": nn.utils.rnn.pad_sequence(texts, batch_first=True)}
        if items[0].image is not None:
            inputs["pixels"] = torch.stack([self._pixels(item) for item in items])
        return Batch(inputs, len(items))

    def embed(self, batch: Batch) -> Tensor:
        vectors = self.text(batch.inputs["ids"])
        if "pixels" in batch.inputs:
            vectors = vectors + self.module["image"](batch.inputs["pixels"].to(self.dtype))
        return nn.functional.normalize(vectors, dim=-1)

    def text(self, ids: Tensor) -> Tensor:
        real = (ids > 0).unsqueeze(-1)
        vectors: Tensor = (self.module["text"](ids) * real).sum(1) / real.sum(1).clamp(min=1)
        return vectors

    def cost(self, item: Item) -> int:
        return len(item.text)

    @property
    def provenance(self) -> dict[str, Any]:
        return {"name": self.name, "adapter": self.adapter, "revision": "1", "dtype": str(self.dtype)}

    def _pixels(self, item: Item) -> Tensor:
        assert item.image is not None
        thumbnail = item.image.rgb().resize((8, 8))
        return torch.frombuffer(bytearray(thumbnail.tobytes()), dtype=torch.uint8).float() / 128 - 1


class Constant(ByteModel):
    def embed(self, batch: Batch) -> Tensor:
        return torch.full((batch.size, DIM), DIM**-0.5)


class NotANumber(ByteModel):
    def embed(self, batch: Batch) -> Tensor:
        return super().embed(batch) * torch.nan


class Zero(ByteModel):
    def embed(self, batch: Batch) -> Tensor:
        return super().embed(batch) * 0


class Unnormalised(ByteModel):
    def embed(self, batch: Batch) -> Tensor:
        return super().embed(batch) * 3


class SeesNeighbours(ByteModel):
    def embed(self, batch: Batch) -> Tensor:
        vectors = super().embed(batch)
        return nn.functional.normalize(vectors + 0.01 * vectors.mean(dim=0), dim=-1)


class SeesItsPlace(ByteModel):
    def embed(self, batch: Batch) -> Tensor:
        shift = torch.linspace(0, 0.1, batch.size).unsqueeze(-1) * torch.eye(1, DIM)
        return nn.functional.normalize(super().embed(batch) + shift, dim=-1)


class SeesPadding(ByteModel):
    def text(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.module["text"](ids).sum(1) / (ids > 0).sum(1, keepdim=True).clamp(min=1)
        return vectors


class Restless(ByteModel):
    """Left in training mode, so that its dropout is on."""

    def embed(self, batch: Batch) -> Tensor:
        return nn.functional.normalize(nn.functional.dropout(super().embed(batch), 0.1), dim=-1)


class ImageBlind(ByteModel):
    def _pixels(self, item: Item) -> Tensor:
        return torch.ones(192)


class TextBlind(ByteModel):
    def text(self, ids: Tensor) -> Tensor:
        same: Tensor = self.module["text"](torch.ones(len(ids), 1, dtype=torch.long)).mean(1)
        return same if ids.shape[1] else super().text(ids)


class ImageHidesText(ByteModel):
    def preprocess(self, items: Sequence[Item]) -> Batch:
        batch = super().preprocess(items)
        if "pixels" in batch.inputs:
            batch.inputs["ids"] = batch.inputs["ids"] * 0
        return batch


class TextHidesImage(ByteModel):
    def preprocess(self, items: Sequence[Item]) -> Batch:
        batch = super().preprocess(items)
        if items[0].text:
            batch.inputs.pop("pixels", None)
        return batch


def failed(model: EmbeddingModel) -> set[str]:
    return {check.name for check in verify_model(model).checks if not check.passed}


def test_a_sound_model_passes_every_check() -> None:
    verdict = verify_model(ByteModel())

    assert verdict.passed
    assert len(verdict.vectors) == 20
    assert "every check passed" in verdict.table()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_reduced_precision_the_bound_is_a_cosine(dtype: torch.dtype) -> None:
    verdict = verify_model(ByteModel(dtype))

    assert verdict.passed
    assert "1 − cosine" in next(check for check in verdict.checks if check.name == "batch size").required


@pytest.mark.parametrize(
    ("broken", "checks"),
    [
        (NotANumber, {"finite"}),
        (Zero, {"unit norm"}),
        (Constant, {"distinct"}),
        (Restless, {"same again"}),
        (SeesNeighbours, {"batch size"}),
        (SeesItsPlace, {"order"}),
        (SeesPadding, {"padding", "batch size"}),
    ],
)
def test_the_check_that_is_there_for_a_fault_fails(broken: type[ByteModel], checks: set[str]) -> None:
    assert checks <= failed(broken())


@pytest.mark.parametrize(
    ("blind", "checks"),
    [
        (TextBlind, {"text matters", "text beside an image matters"}),
        (ImageBlind, {"image matters", "image beside a text matters"}),
        (ImageHidesText, {"text beside an image matters"}),
        (TextHidesImage, {"image beside a text matters"}),
        (Unnormalised, {"unit norm"}),
    ],
)
def test_no_other_check_fails_than_those_of_the_fault(blind: type[ByteModel], checks: set[str]) -> None:
    assert failed(blind()) == checks


def test_the_quick_check_gives_its_figures() -> None:
    figures = quick_check(ByteModel())

    assert figures["items"] == 7
    assert figures["batch size"] < 1e-6
    assert figures["image matters"] > 1e-4


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (NotANumber, "finite"),
        (Zero, "unit norm"),
        (Constant, "distinct"),
        (SeesNeighbours, "batch size"),
        (SeesPadding, "batch size"),
        (TextBlind, "text matters"),
        (ImageBlind, "image matters"),
    ],
)
def test_the_quick_check_refuses_a_broken_model_by_name(broken: type[ByteModel], check: str) -> None:
    with pytest.raises(MmebError, match=f"^bytes fails the check before the run.*: {check}: measured"):
        quick_check(broken())


def test_vectors_of_another_size_than_the_models_dim_are_refused() -> None:
    model = ByteModel()
    model.dim = 7
    with pytest.raises(MmebError, match=r"makes \(1, 24\) of 1 items, its dim being 7"):
        quick_check(model)


def test_a_failed_verdict_is_valid_json_and_counts_its_failures() -> None:
    verdict = verify_model(NotANumber())

    assert verdict.to_json()["passed"] is False
    assert {check["name"]: check["measured"] for check in verdict.to_json()["checks"]}["batch size"] is None
    assert "of 11 checks failed" in verdict.table()


def test_a_model_equals_the_reference_that_it_wrote(tmp_path: Path) -> None:
    save_reference(tmp_path / "r.safetensors", ByteModel(), verify_model(ByteModel()).vectors)

    check = verify_model(ByteModel(), load_reference(tmp_path / "r.safetensors")).checks[-1]

    assert (check.name, check.passed) == ("reference", True)
    assert check.measured == pytest.approx(1)


def test_reduced_precision_may_be_compared_with_a_float32_reference(tmp_path: Path) -> None:
    save_reference(tmp_path / "r.safetensors", ByteModel(), verify_model(ByteModel()).vectors)

    assert verify_model(ByteModel(torch.bfloat16), load_reference(tmp_path / "r.safetensors")).passed


def test_other_weights_under_the_same_revision_fail_the_reference(tmp_path: Path) -> None:
    save_reference(tmp_path / "r.safetensors", ByteModel(seed=1), verify_model(ByteModel(seed=1)).vectors)

    verdict = verify_model(ByteModel(), load_reference(tmp_path / "r.safetensors"))

    assert [check.name for check in verdict.checks if not check.passed] == ["reference"]


def test_a_reference_tells_which_libraries_have_changed_since(tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    save_reference(path, ByteModel(), verify_model(ByteModel()).vectors)
    reference = load_reference(path)
    assert reference.changed == []

    older = replace(
        reference, origin=reference.origin | {"libraries": {**reference.origin["libraries"], "torch": "1.0"}}
    )

    assert f"torch 1.0 → {version('torch')}" in verify_model(ByteModel(), older).checks[-1].detail


def test_a_reference_of_another_model_is_refused(tmp_path: Path) -> None:
    class Other(ByteModel):
        adapter = "other"

    save_reference(tmp_path / "r.safetensors", ByteModel(), verify_model(ByteModel()).vectors)
    with pytest.raises(MmebError, match="is not of this model: its adapter is 'bytes', here it is 'other'"):
        verify_model(Other(), load_reference(tmp_path / "r.safetensors"))


def test_a_file_that_holds_no_reference_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.safetensors").write_text("no")
    with pytest.raises(MmebError, match="holds no reference vectors"):
        load_reference(tmp_path / "r.safetensors")
    with pytest.raises(MmebError, match="There is no reference file"):
        load_reference(tmp_path / "missing")


def test_the_probes_are_the_ones_that_reference_files_were_made_with() -> None:
    assert len(probes.probes()) == 20
    assert probes.fingerprint() == "828bc09e7e2fecf1"
