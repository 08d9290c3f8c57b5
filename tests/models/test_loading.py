"""Files from a hub or a folder, into memory that has room for them."""

import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.command import python
from support.hub import commit_of, serve
from support.paths import GOLDEN

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.models.checkpoints.weights import load_state_dict, load_strict
from mmeb.models.loading import load_model
from mmeb.runtime import memory

CKPT = GOLDEN / "ckpt"
CLIP = "openai/clip-vit-large-patch14"
LORA = "TIGER-Lab/VLM2Vec-Qwen2VL-2B"
LORA_BASE = "Qwen/Qwen2-VL-2B-Instruct"


Call = tuple[str, dict[str, Any]]
ONLINE: dict[str, Call] = {
    "clip": ("clip-vit-l14", {}),
    "lora": ("vlm2vec-qwen2vl-2b", {}),
    "unknown": ("nobody/nothing", {"adapter": "clip"}),
    "branch": (CLIP, {"revision": "no-such-branch"}),
    "commit": (CLIP, {"revision": "abcdef0"}),
}
OFFLINE: dict[str, Call] = {
    "clip": ("clip-vit-l14", {"offline": True}),
    "lora": ("vlm2vec-qwen2vl-2b", {"offline": True}),
    "absent": ("clip-vit-b32", {"offline": True}),
    "unreachable": ("clip-vit-l14", {}),
}


def load_elsewhere(hub: str, home: Path, calls: dict[str, Call]) -> dict[str, Any]:
    """`load_model` in a process of its own, with this hub and this cache: each model's provenance, or its error."""
    code = f"""if True:
        import json
        from mmeb.errors import MmebError
        from mmeb.models.loading import load_model
        results = {{}}
        for label, (name, arguments) in {calls!r}.items():
            try:
                results[label] = load_model(name, device="cpu", **arguments).provenance
            except MmebError as error:
                results[label] = str(error)
        print(json.dumps(results))
    """
    done = python("-c", code, env={"HF_ENDPOINT": hub, "HF_HOME": home})
    assert done.code == 0, done.err
    results: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    return results


@dataclass(frozen=True)
class Loaded:
    online: dict[str, Any]
    offline: dict[str, Any]  # from the same cache, the hub gone
    fetched: set[str]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Models from a stand-in hub; its CLIP has the weights twice, and things that nobody needs."""
    folder, home = tmp_path_factory.mktemp("repository") / "clip", tmp_path_factory.mktemp("home")
    shutil.copytree(CKPT / "clip", folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    for name in ("modeling_clip.py", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(b"not wanted")
    with serve({CLIP: folder, LORA: CKPT / "qwen2_vl_dora", LORA_BASE: CKPT / "qwen2_vl"}) as hub:
        online = load_elsewhere(hub, home, ONLINE)
        paths = [path for method, path in hub.requests if method == "GET" and path.startswith(f"/{CLIP}/resolve/")]
    offline = load_elsewhere("http://127.0.0.1:9", home, OFFLINE)
    return Loaded(online, offline, {path.rsplit("/", 1)[-1] for path in paths})


def test_a_hub_model_records_its_commit(loaded: Loaded) -> None:
    assert loaded.online["clip"]["revision"] == commit_of(CLIP)


def test_no_second_copy_of_the_weights_and_no_code_is_downloaded(loaded: Loaded) -> None:
    assert "model.safetensors" in loaded.fetched
    assert not {"pytorch_model.bin", "modeling_clip.py", "training_args.bin", "optimizer.pt"} & loaded.fetched


def test_a_lora_is_loaded_over_its_base_at_the_commits_of_both(loaded: Loaded) -> None:
    lora = loaded.online["lora"]

    assert lora["revision"] == commit_of(LORA)
    assert lora["revision"].startswith("7717dee")  # known by its first digits: the hub tells the rest
    assert (lora["base"], lora["base_revision"]) == (LORA_BASE, commit_of(LORA_BASE))


@pytest.mark.parametrize("name", ["clip", "lora"])
def test_offline_the_same_commits_are_loaded_from_the_cache(loaded: Loaded, name: str) -> None:
    assert loaded.offline[name] == loaded.online[name]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("unknown", "The hub has no nobody/nothing"),
        ("branch", f"{CLIP} has no such revision"),
        ("commit", f"{CLIP} has no commit abcdef0"),
    ],
)
def test_what_the_hub_lacks_is_said_plainly(loaded: Loaded, label: str, message: str) -> None:
    assert loaded.online[label].startswith(message)


def test_what_is_not_in_the_cache_is_said_plainly(loaded: Loaded) -> None:
    message = "openai/clip-vit-base-patch32 at 'main' is not in the local cache, and no call may leave the machine"

    assert loaded.offline["absent"].startswith(message)


def test_an_unreachable_hub_is_said_plainly_with_a_way_out(loaded: Loaded) -> None:
    error = loaded.offline["unreachable"]

    assert error.startswith(f"The hub cannot be reached for {CLIP}")
    assert "--offline" in error
    assert "--model demo --data demo" in error


def test_a_lora_in_a_folder_takes_its_base_from_an_option() -> None:
    model = load_model(str(CKPT / "qwen2_vl_dora"), device="cpu", options={"base": str(CKPT / "qwen2_vl")})

    assert model.provenance["base"] == str(CKPT / "qwen2_vl")


def test_a_whole_model_takes_no_base() -> None:
    with pytest.raises(MmebError, match="is a full model, not a LoRA"):
        load_model(str(CKPT / "clip"), device="cpu", options={"base": str(CKPT / "clip")})


def test_the_adapter_of_a_folder_is_told_by_its_configuration() -> None:
    assert load_model(str(CKPT / "clip"), device="cpu").adapter == "clip"


def test_a_configuration_that_several_adapters_know_wants_one_named() -> None:
    with pytest.raises(MmebError, match="is a llava_next model, which does not tell its adapter: name one of clip"):
        load_model(str(CKPT / "llava_next"), device="cpu")


def test_a_changed_folder_is_another_revision(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(CKPT / "clip", folder)
    before = load_model(str(folder), device="cpu").provenance["revision"]
    (folder / "notes.txt").write_text("results may lie beside the model")
    assert load_model(str(folder), device="cpu").provenance["revision"] == before

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "logit_scale_init_value": 1.0}))

    assert load_model(str(folder), device="cpu").provenance["revision"] != before


def test_a_folder_takes_no_revision() -> None:
    with pytest.raises(MmebError, match="is a folder and has no revisions"):
        load_model(str(CKPT / "clip"), device="cpu", revision="main")


def test_memory_is_stated_before_a_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    load_model(str(CKPT / "clip"), device="cpu", dtype="bfloat16")

    assert "0.2 M parameters, 0.4 MiB in bfloat16" in capsys.readouterr().err


def test_a_model_that_cannot_fit_is_refused_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 500_000)

    with pytest.raises(MmebError, match=r"too little memory .*: its weights take 0.8 MiB in float32, and cpu has 0.5"):
        load_model(str(CKPT / "clip"), device="cpu")
    assert load_model(str(CKPT / "clip"), device="cpu", dtype="bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "gpu"}, "There is no device 'gpu'"),
        ({"device": "cuda:99"}, "There is no cuda:99 here"),
        ({"device": "meta"}, "There is no meta here"),
        ({"adapter": "phi35v"}, "is a clip model, not phi3_v: name another --adapter"),
        ({"options": {"num_crops": "4"}}, "The adapter clip: there is no option 'num_crops'"),
        ({"dtype": "int8"}, "There is no dtype 'int8': take float32, bfloat16 or float16"),
        ({"device_map": "auto"}, "A clip model can't be spread over several devices"),
        ({"device_map": "balanced"}, "--device-map can be auto, not 'balanced'"),
        ({"device_map": "auto", "device": "cpu"}, "leave --device out"),
    ],
)
def test_a_mistake_in_the_arguments_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MmebError, match=message):
        load_model(str(CKPT / "clip"), **arguments)


@pytest.mark.parametrize("adapter", ["clip", "qwen2-vl", "open_clip", "blip2"])
def test_a_checkpoint_of_another_architecture_is_refused_by_its_name(adapter: str) -> None:
    with pytest.raises(MmebError, match=r"is a phi3_v model, not .*: name another --adapter|name its --adapter"):
        load_model(str(CKPT / "phi3_v"), adapter=adapter, device="cpu")


def test_a_lora_for_a_family_that_takes_none_is_refused() -> None:
    with pytest.raises(MmebError, match="is a LoRA, which this adapter can't load"):
        load_model(str(CKPT / "qwen2_vl_dora"), adapter="clip", device="cpu", options={"base": str(CKPT / "qwen2_vl")})


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("qwen2_vl_dora", "adapter_config.json", "{", "The adapter_config.json of .* can't be read"),
        ("phi3_v", "config.json", '{"model_type": "phi3_v"}', "lacks hidden_size"),
        ("clip", "config.json", "{", "has no config.json that tells its adapter"),
        ("qwen2_vl", "preprocessor_config.json", "{", "has no preprocessor_config.json that can be read"),
        ("phi3_v", "tokenizer.json", "{", "phi3_v has no tokenizer that can be read"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, file: str, content: str, message: str) -> None:
    folder = shutil.copytree(CKPT / name, tmp_path / name)
    (folder / file).write_text(content)

    with pytest.raises(MmebError, match=message):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("name", ["clip", "blip2", "phi3_v", "qwen2_vl"])
def test_a_model_on_the_meta_device_counts_tokens_without_its_weights(name: str) -> None:
    shape, model = (load_model(str(CKPT / name), device="cpu", meta=meta) for meta in (True, False))
    item = Item("<|image_1|>\nWhat is it?", image=Image.new("RGB", (90, 40)))

    assert next(shape.module.parameters()).is_meta
    assert (shape.rendered(item), shape.n_tokens(item)) == (model.rendered(item), model.n_tokens(item))
    assert shape.provenance == model.provenance


@pytest.mark.parametrize("name", ["clip", "phi3_v", "qwen2_vl"])
def test_a_model_can_be_handed_to_a_process_that_is_not_forked(name: str) -> None:
    model = load_model(str(CKPT / name), device="cpu")
    item = Item("What is it?")

    assert pickle.loads(pickle.dumps(model)).cost(item) == model.cost(item)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_float32_on_a_gpu_is_float32() -> None:
    load_model(str(CKPT / "clip"), device="cuda", dtype="float32")

    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_pickled_checkpoint_that_holds_code_is_refused(tmp_path: Path) -> None:
    shutil.copy(CKPT / "clip" / "config.json", tmp_path)
    torch.save({"weight": Path("a class that no tensor needs")}, tmp_path / "pytorch_model.bin")

    with pytest.raises(MmebError, match=r"pytorch_model.bin holds more than tensors, or is damaged"):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_cut_off_checkpoint_is_refused(tmp_path: Path, keep: int) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(CKPT / "clip", folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(MmebError, match=r"can't be read .*download the model again"):
        load_model(str(folder), device="cpu")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(CKPT / "clip", folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(MmebError, match=r"lacks model-00002-of-00002.safetensors, which model.safetensors.index.json"):
        load_state_dict(folder)


def test_strict_loading_renames_keys_and_skips_what_may_be_left_over() -> None:
    module = torch.nn.Linear(2, 1)
    state = {"old.weight": torch.ones(1, 2), "old.bias": torch.zeros(1), "lm_head.weight": torch.ones(3)}

    load_strict(module, state, "x", rename=lambda key: key.removeprefix("old."), ignored=("lm_head.weight",))

    assert module.weight.tolist() == [[1.0, 1.0]]


def test_strict_loading_names_every_kind_of_fault() -> None:
    state = {"weight": torch.ones(1, 3), "more": torch.ones(1)}

    with pytest.raises(MmebError) as error:
        load_strict(torch.nn.Linear(2, 1), state, "somewhere")

    assert "the model lacks 1 weights (bias)" in str(error.value)
    assert "it has no place for 1 (more)" in str(error.value)
    assert "1 are of another shape (weight is (1, 3), not (1, 2))" in str(error.value)
