"""VLM2Vec by its registered names: tiny checkpoints stand on a stand-in hub at the ids of the published ones."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import python
from support.hub import commit_of, serve
from support.official import write_official
from support.paths import GOLDEN

REPOSITORIES = {
    "TIGER-Lab/VLM2Vec-Full": "phi3_v",
    "TIGER-Lab/VLM2Vec-LoRA": "phi3_v_dora",
    "microsoft/Phi-3.5-vision-instruct": "phi3_v",
    "TIGER-Lab/VLM2Vec-Qwen2VL-2B": "qwen2_vl_dora",
    "Qwen/Qwen2-VL-2B-Instruct": "qwen2_vl",
}
EMBED = """if True:
    import json, sys
    import numpy as np
    import mmeb
    name, options, rows, images, out = sys.argv[1:]
    items = [mmeb.Item(text, image=f"{images}/{path}" if path else None) for text, path in json.loads(rows)]
    model = mmeb.load_model(name, device="cpu", options=json.loads(options))
    np.save(out, mmeb.encode(model, items, batch_size=1, workers=0))
    print(json.dumps(model.provenance))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An empty cache, and a hub that has the checkpoints and a small MMEB-eval."""
    data = write_official(tmp_path_factory.mktemp("hub") / "eval", rows=4, candidates=5)
    checkpoints = {repository: GOLDEN / "ckpt" / name for repository, name in REPOSITORIES.items()}
    with serve({**checkpoints, "datasets/TIGER-Lab/MMEB-eval": data}) as hub:
        yield {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path_factory.mktemp("home"))}


def call(environment: dict[str, str], *arguments: str) -> str:
    done = python(*arguments, env=environment)
    assert done.code == 0, done.err
    return done.out


@pytest.mark.parametrize(
    ("model", "source", "base", "golden", "options"),
    [
        ("vlm2vec-phi35v-lora", "TIGER-Lab/VLM2Vec-LoRA", "microsoft/Phi-3.5-vision-instruct", "phi3_v_dora", {}),
        (
            "vlm2vec-qwen2vl-2b",
            "TIGER-Lab/VLM2Vec-Qwen2VL-2B",
            "Qwen/Qwen2-VL-2B-Instruct",
            "qwen2_vl_dora",
            {"image_resolution": "low"},
        ),
    ],
)
def test_a_published_lora_is_fetched_with_its_base_and_embeds_as_the_reference_does(
    environment: dict[str, str],
    tmp_path: Path,
    model: str,
    source: str,
    base: str,
    golden: str,
    options: dict[str, str],
) -> None:
    rows = json.loads((GOLDEN / f"{golden}.json").read_text())["rows"]
    out, images = str(tmp_path / "vectors.npy"), str(GOLDEN / "data/images")
    printed = call(environment, "-c", EMBED, model, json.dumps(options), json.dumps(rows), images, out)

    provenance = json.loads(printed)
    assert (provenance["checkpoint"], provenance["revision"]) == (source, commit_of(source))
    assert (provenance["base"], provenance["base_revision"]) == (base, commit_of(base))
    expected = np.load(GOLDEN / f"{golden}.npz")
    reference = np.stack([expected[f"merged/{number}"] for number in range(len(rows))])
    np.testing.assert_allclose(np.load(out), reference, rtol=0, atol=1e-5)


def test_a_run_by_the_registered_name_records_what_moves_its_scores(
    environment: dict[str, str], tmp_path: Path
) -> None:
    tasks = "ImageNet-1K,A-OKVQA,WebQA"
    call(environment, "-m", "mmeb", "run", "--model", "vlm2vec-phi35v", "--tasks", tasks, "--output", str(tmp_path))

    results: dict[str, Any] = json.loads((tmp_path / "results.json").read_text())
    model = results["provenance"]["model"]
    assert model["revision"] == commit_of("TIGER-Lab/VLM2Vec-Full")
    assert (model["adapter"], model["prompt"], model["dtype"]) == ("phi35v", "vlm2vec-1", "float32")
    assert model["options"]["num_crops"] == 4
    assert set(results["metrics"]["image"]) == set(tasks.split(","))
