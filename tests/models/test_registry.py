"""Names of models and adapters, ours and other packages'."""

import json
from pathlib import Path

import pytest
from support.command import python
from support.paths import GOLDEN

from mmeb.errors import MmebError
from mmeb.models.base import EmbeddingModel
from mmeb.models.entries import DEFAULT_REVISIONS, ENTRIES
from mmeb.models.registry import ADAPTERS, adapter_class, find_entry

CLIP = GOLDEN / "ckpt" / "clip"

ADAPTER_MODULE = '''
import torch
from torch.nn.functional import normalize

from mmeb.models.base import Batch, EmbeddingModel


class LengthModel(EmbeddingModel):
    """Embeds how long a text is."""

    adapter = "length"

    def __init__(self, checkpoint):
        self.checkpoint, self.name, self.dim = checkpoint, checkpoint.name, 2
        self.device, self.dtype, self.module = torch.device("cpu"), torch.float32, torch.nn.Identity()

    @classmethod
    def load(cls, checkpoint, *, device, dtype, options):
        return cls(checkpoint)

    def preprocess(self, items):
        return Batch({"x": torch.tensor([[1.0, len(item.text)] for item in items])}, len(items))

    def embed(self, batch):
        return normalize(batch.inputs["x"], dim=-1)

    def cost(self, item):
        return 1

    @property
    def provenance(self):
        return {**self.checkpoint.provenance, "adapter": self.adapter}
'''


@pytest.fixture(scope="module")
def other_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installed distribution `lengths`: an adapter, and a model that uses it."""
    site = tmp_path_factory.mktemp("site")
    (site / "lengths_adapter.py").write_text(ADAPTER_MODULE)
    (site / "lengths_entries.py").write_text(
        "from mmeb.models.entries import ModelEntry\n"
        f"ENTRIES = (ModelEntry('length-base', 'length', {str(CLIP)!r}, note='from another package'),)\n"
    )
    info = site / "lengths-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lengths\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[mmeb.models]\nlength = lengths_adapter:LengthModel\nlength-models = lengths_entries:ENTRIES\n"
    )
    return site


def run(code: str, path: Path | None = None) -> str:
    done = python("-c", code, env={"PYTHONPATH": path} if path else None)
    assert done.code == 0, done.err
    return done.out.strip()


def test_every_registered_model_has_an_adapter_and_a_name_of_its_own() -> None:
    names = [entry.name for entry in ENTRIES]

    assert len(set(names)) == len(names)
    assert {entry.adapter for entry in ENTRIES} <= set(ADAPTERS)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_adapter_can_be_imported_under_its_own_name(adapter: str) -> None:
    found = adapter_class(adapter)

    assert issubclass(found, EmbeddingModel)
    assert found.adapter == adapter


def test_default_revisions_belong_to_registered_models() -> None:
    assert set(DEFAULT_REVISIONS) <= {entry.source for entry in ENTRIES}


def test_naming_models_imports_no_torch() -> None:
    code = "import sys; from mmeb.models.registry import find_entry; find_entry('e5-v'); print('torch' in sys.modules)"

    assert run(code) == "False"


def test_a_hub_id_that_is_registered_brings_its_adapter_and_options() -> None:
    entry = find_entry("openai/clip-vit-large-patch14")

    assert (entry.name, entry.adapter) == ("openai/clip-vit-large-patch14", "clip")
    assert entry.options == find_entry("clip-vit-l14").options


def test_another_adapter_does_not_inherit_the_entrys_options() -> None:
    assert find_entry("clip-vit-l14", "open_clip").options == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip-vit-l41", "There is no model 'clip-vit-l41': did you mean clip-vit-l14"),
        ("VLM2Vec-phi35v", "did you mean vlm2vec-phi35v"),
        ("zzz", "There is no model 'zzz': `mmeb models` lists those that have a name."),
        ("./no/such/folder", "There is no folder ./no/such/folder"),
    ],
)
def test_an_unknown_model_is_refused_with_the_nearest_names(name: str, message: str) -> None:
    with pytest.raises(MmebError, match=message):
        find_entry(name)


def test_an_unknown_adapter_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(MmebError, match="There is no adapter 'openclip': did you mean open_clip"):
        adapter_class("openclip")


def test_a_model_of_another_package_is_listed_and_embeds(other_package: Path) -> None:
    code = """if True:
        import json, mmeb
        from mmeb.models.registry import list_adapters, list_entries
        model = mmeb.load_model("length-base")
        vector = mmeb.encode(model, [mmeb.Item(text="four")], workers=0)[0]
        print(json.dumps({
            "listed": "length-base" in [entry.name for entry in list_entries()],
            "adapter": "length" in list_adapters(),
            "slope": float(vector[1] / vector[0]),
        }))
    """

    assert json.loads(run(code, other_package)) == {"listed": True, "adapter": True, "slope": 4.0}


def test_an_adapter_of_another_package_takes_any_folder(other_package: Path) -> None:
    code = f"import mmeb; print(mmeb.load_model({str(CLIP)!r}, adapter='length').provenance['adapter'])"

    assert run(code, other_package) == "length"


def test_an_entry_point_that_fails_is_named(tmp_path: Path) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mmeb.models]\nbroken = no_such_module:Model\n")
    code = """if True:
        from mmeb.errors import MmebError
        from mmeb.models.registry import list_entries
        try:
            list_entries()
        except MmebError as error:
            print(error)
    """

    assert run(code, tmp_path).startswith("The entry point broken of the package broken can't be loaded")
