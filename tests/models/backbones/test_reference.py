"""All backbones, against what the reference implementation makes of the same prompts and images."""

import json

import numpy as np
import pytest
from PIL import Image
from support.backbones import CLASSES, PROMPT, SENTENCE, embed, picture, tiny
from support.paths import GOLDEN

from mmeb.models.backbones.base import Backbone

PROBES = {
    "text_len": (SENTENCE * 10, ""),
    "img_text": ("<|image_1|>\n" + SENTENCE * 10, "set0/im000.png"),
    "empty": ("", ""),
    "trailing_newline": ("hello\n", ""),
    "leading_space": (" hello", ""),
}
ODD_INPUTS = [
    *((name, probe) for name in CLASSES for probe in PROBES if (name, probe) != ("qwen2_vl", "empty")),
]  # of an empty text the reference has no token at all for Qwen2-VL


@pytest.mark.parametrize(
    ("name", "inputs", "every"),
    [
        ("phi3_v", "c4", 1),
        ("phi3_v", "c16", 4),
        *(
            (name, inputs, every)
            for name in ("llava_next", "qwen2_vl")
            for inputs, every in (("none", 3), ("low", 9), ("high", 9))
        ),
    ],
)
def test_tokens_and_pixels_are_the_reference_ones(name: str, inputs: str, every: int) -> None:
    """Every n-th row; the crops of Phi-3.5-V have tests of their own."""
    backbone = tiny(name, num_crops=int(inputs[1:])) if name == "phi3_v" else tiny(name)
    rows = json.loads((GOLDEN / f"inputs/{name}_{inputs}.json").read_text())
    expected = np.load(GOLDEN / f"inputs/{name}_{inputs}.npz")
    for number in range(0, len(rows), every):
        row = rows[number]
        encoded = backbone.encode(row["text"], picture(row["img_path"], inputs))
        assert encoded.ids.tolist() == expected[f"ids/{number}"].tolist(), row["text"]
        if name == "phi3_v":
            assert encoded.is_image.sum() == (encoded.ids == -1).sum()
        elif row["img_path"]:
            pixels, path = encoded.image["pixel_values"], row["img_path"]
            sizes = "image_sizes" if name == "llava_next" else "image_grid_thw"
            assert list(pixels.shape) == row["pixel_values_shape"]
            assert encoded.image[sizes].flatten().tolist() == np.ravel(row[sizes]).tolist()
            sampled = pixels.numpy().ravel()[expected[f"px/{path}/idx"]]
            np.testing.assert_allclose(sampled, expected[f"px/{path}/val"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [("phi3_v", "c4"), ("phi3_v", "c16"), ("llava_next", "none"), ("qwen2_vl", "none")],
)
def test_token_count_needs_no_pixels(name: str, inputs: str) -> None:
    backbone = tiny(name, num_crops=int(inputs[1:])) if name == "phi3_v" else tiny(name)
    for row in json.loads((GOLDEN / f"inputs/{name}_{inputs}.json").read_text()):
        image = picture(row["img_path"])
        assert backbone.n_tokens(row["text"], image.size if image else None) == row["n_tokens"]


@pytest.mark.parametrize(("name", "probe"), ODD_INPUTS)
def test_odd_inputs_become_the_tokens_of_the_reference(name: str, probe: str) -> None:
    text, path = PROBES[probe]
    expected = json.loads((GOLDEN / "quirks.json").read_text())[name][probe]
    ids = tiny(name).encode(text, picture(path, "none" if name == "phi3_v" else "low")).ids.tolist()
    assert (len(ids), ids[:6], ids[-6:]) == (expected["n"], expected["head"], expected["tail"])


@pytest.fixture(
    params=[("phi3_v", {}), ("llava_next", {}), ("qwen2_vl", {"positions": "1d"}), ("qwen2_vl", {"positions": "2d"})],
    ids=lambda param: "-".join([param[0], *param[1].values()]),
)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    name, options = request.param
    backbone: Backbone = tiny(name, **options)
    return backbone


def test_rows_in_one_batch_equal_the_rows_alone(backbone: Backbone) -> None:
    rows = [
        backbone.encode("no", None),
        backbone.encode(PROMPT, picture("set0/im000.png")),
        backbone.encode("", None),
        backbone.encode(PROMPT, None),
        backbone.encode("Look: " + PROMPT + SENTENCE, picture("set2/im011.png")),
        backbone.encode(SENTENCE * 3, None),
    ]
    alone = np.concatenate([embed(backbone, [row]) for row in rows])
    np.testing.assert_allclose(embed(backbone, rows), alone, rtol=0, atol=1e-6)
    np.testing.assert_allclose(embed(backbone, rows[::-1])[::-1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (10_000, 10), (10, 10_000), (3, 3)])
@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_extreme_images_embed(backbone: Backbone, size: tuple[int, int], mode: str) -> None:
    row = backbone.encode(PROMPT, Image.new(mode, size))
    assert backbone.n_tokens(PROMPT, size) == len(row.ids)
    assert np.isfinite(embed(backbone, [row])).all()


def test_counts_of_tokens_and_padding(backbone: Backbone) -> None:
    rows = [backbone.encode(text, None) for text in ("no", SENTENCE)]
    batch = backbone.collate(rows)
    lengths = [len(row.ids) for row in rows]
    assert (batch.size, batch.tokens, batch.padding) == (2, sum(lengths), max(lengths) - min(lengths))
