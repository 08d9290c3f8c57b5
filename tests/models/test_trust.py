"""Nothing of a checkpoint is executed or imported, and nobody is asked whether it may be."""

import ast
import builtins
import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.paths import GOLDEN, ROOT

from mmeb.errors import MmebError
from mmeb.models.loading import load_model

LOADERS = {"from_pretrained", "from_config", "get_tokenizer"}
CODE = {
    "AutoConfig": "evil.X",
    "AutoModel": "evil.X",
    "AutoImageProcessor": "evil.X",
    "AutoTokenizer": ["evil.X", "evil.X"],
}
FILES = {
    "config.json": {},
    "preprocessor_config.json": {"image_processor_type": "EvilProcessor"},
    "tokenizer_config.json": {"tokenizer_class": "EvilTokenizer"},
}
CHECKPOINTS = {
    "clip": "clip",
    "blip": "blip",
    "blip2": "blip2",
    "e5v": "e5v",
    "phi35v": "phi3_v",
    "qwen2-vl": "qwen2_vl",
}


def add_code(folder: Path, witness: Path) -> None:
    code = f"open({str(witness)!r}, 'w').close()\nclass X: pass\n"
    for name in ("evil.py", "__init__.py", "modeling_evil.py"):
        (folder / name).write_text(code)


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object) -> str:
        raise AssertionError("a question is asked")

    monkeypatch.setattr(builtins, "input", ask)


def load_or_refuse(folder: Path, adapter: str) -> None:
    with contextlib.suppress(MmebError):
        load_model(str(folder), adapter=adapter, device="cpu")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("adapter", CHECKPOINTS)
def test_code_that_a_checkpoint_names_is_not_run(adapter: str, file: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "ckpt" / CHECKPOINTS[adapter], tmp_path / "model"))
    witness = tmp_path / "executed"
    add_code(folder, witness)
    path = folder / file
    fields = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**fields, "auto_map": CODE, **FILES[file]}))
    load_or_refuse(folder, adapter)
    assert not witness.exists()


@pytest.mark.parametrize(
    "text",
    [
        {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}},
        {"hf_model_name": "{folder}", "hf_tokenizer_name": "{folder}"},
    ],
)
def test_code_that_an_open_clip_configuration_names_is_not_run(
    text: dict[str, object], open_clip_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(open_clip_folder, tmp_path / "model"))
    witness = tmp_path / "executed"
    add_code(folder, witness)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= json.loads(json.dumps(text).replace("{folder}", str(folder)))
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": CODE}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Evil", "auto_map": CODE}))
    with pytest.raises(MmebError, match="that open_clip can't build"):
        load_model(str(folder), adapter="open_clip", device="cpu")
    assert not witness.exists()


@pytest.mark.parametrize("name", ["clip", "qwen2_vl"])
def test_a_kernel_that_a_configuration_asks_for_is_not_loaded(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "ckpt" / name, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    kernel = {"attn_implementation": "someone/kernel", "_attn_implementation": "someone/kernel"}
    config["vision_config"] |= kernel
    (folder / "config.json").write_text(json.dumps({**config, **kernel}))
    module: Any = load_model(str(folder), device="cpu").module
    assert "kernel" not in str(module.config)


@pytest.mark.parametrize("adapter", ["{folder}.evil:X", "evil:X", "os:path", "/tmp/evil.py:X", "nothing"])
def test_a_manifest_names_registered_adapters_only(
    adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(GOLDEN / "ckpt/clip", tmp_path / "model"))
    witness = tmp_path / "executed"
    add_code(folder, witness)
    (folder / "mmeb.json").write_text(json.dumps({"adapter": adapter.format(folder="model")}))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(MmebError, match=r"mmeb\.json of .* names the adapter .*, which is not registered"):
        load_model(str(folder), device="cpu")
    assert not witness.exists()
    assert load_model(str(folder), adapter="clip", device="cpu").adapter == "clip"


def test_every_loading_call_says_that_no_code_is_trusted() -> None:
    calls = [
        (f"{path.name}:{node.lineno}", ast.unparse(node))
        for path in sorted((ROOT / "mmeb").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADERS
    ]
    assert len(calls) >= 5
    for place, call in calls:
        assert "trust_remote_code=False" in call or call.endswith("get_tokenizer(name, **trust)"), place
