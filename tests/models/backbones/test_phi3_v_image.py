"""High-definition cropping, against what the published processor made of the same files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import GOLDEN

from mmeb.models.backbones.phi3_v_image import (
    GLOBAL_SEPARATOR,
    LINE_SEPARATOR,
    crop_grid,
    hd_transform,
    make_crops,
    n_image_tokens,
    token_layout,
)

IMAGES = GOLDEN / "data/images"
ODD_SIZES = [(1, 1), (10_000, 10), (10, 10_000), (10_000, 1), (336, 336), (337, 336), (3000, 2999)]


@pytest.mark.parametrize(
    "path", sorted((GOLDEN / "inputs/phi3_hd_transform").glob("*.png")), ids=lambda path: path.stem
)
def test_scaled_and_padded_image_is_the_published_one_to_the_pixel(path: Path) -> None:
    name, num_crops, _ = path.name.rsplit(".", 2)
    image = Image.open(IMAGES / name.replace("_", "/", 1))
    expected = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(hd_transform(image, int(num_crops[1:]))), expected)


@pytest.mark.parametrize("num_crops", [4, 16])
def test_crops_have_the_published_layout_and_values(num_crops: int) -> None:
    rows = json.loads((GOLDEN / f"inputs/phi3_v_c{num_crops}.json").read_text())
    values = np.load(GOLDEN / f"inputs/phi3_v_c{num_crops}.npz")
    first_uses = [row for row in rows if "per_crop_mean" in row]  # statistics stand at an image's first row
    assert len(first_uses) > 30
    for row in first_uses:
        path = row["img_path"]
        crops = make_crops(Image.open(IMAGES / path), num_crops)
        padded = torch.zeros(row["pixel_values_shape"][1:])  # the reference fills up with black crops
        padded[: len(crops)] = crops
        assert row["image_sizes"] == [[336 * side for side in crop_grid(Image.open(IMAGES / path).size, num_crops)]]
        np.testing.assert_allclose(padded.mean((1, 2, 3)).numpy(), row["per_crop_mean"], rtol=0, atol=1e-5)
        if f"px/{path}/idx" in values:
            sampled = padded.flatten().numpy()[values[f"px/{path}/idx"]]
            np.testing.assert_allclose(sampled, values[f"px/{path}/val"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_crops", [1, 4, 16])
@pytest.mark.parametrize("size", ODD_SIZES)
def test_grid_is_known_from_the_size_alone(size: tuple[int, int], num_crops: int) -> None:
    rows, columns = crop_grid(size, num_crops)
    assert 1 <= rows * columns <= num_crops
    assert hd_transform(Image.new("L", size), num_crops).size == (columns * 336, rows * 336)
    crops = make_crops(Image.new("L", size), num_crops)
    assert crops.shape == (1 + rows * columns, 3, 336, 336)
    assert crops.isfinite().all()


def test_wide_image_is_padded_above_and_below_and_a_tall_one_left_and_right() -> None:
    wide = np.asarray(hd_transform(Image.new("RGB", (400, 60)), 4))
    tall = np.asarray(hd_transform(Image.new("RGB", (60, 400)), 4))
    assert (wide[0] == 255).all()
    assert (wide[-1] == 255).all()
    assert (wide[168] == 0).all()
    np.testing.assert_array_equal(tall, wide.transpose(1, 0, 2))


def test_transparency_is_dropped_not_composited() -> None:
    transparent_red = Image.new("RGBA", (336, 336), (255, 0, 0, 0))
    assert (np.asarray(hd_transform(transparent_red, 1)) == (255, 0, 0)).all()


def test_layout_reads_all_crops_as_one_picture_then_the_global_view() -> None:
    layout = token_layout((2, 3)).tolist()
    second_line_of_second_crop = (1 + 1) * 144 + 12
    assert layout[0] == 144  # the first crop follows the global view in the table
    assert layout[36] == LINE_SEPARATOR  # behind three crops of twelve
    assert layout[37 + 12] == second_line_of_second_crop
    assert layout[24 * 37] == GLOBAL_SEPARATOR
    assert layout[24 * 37 + 1] == 0
    assert layout[-1] == LINE_SEPARATOR


@pytest.mark.parametrize("size", ODD_SIZES)
def test_layout_has_every_patch_once_and_as_many_tokens_as_announced(size: tuple[int, int]) -> None:
    rows, columns = crop_grid(size, 16)
    layout = token_layout((rows, columns))
    assert len(layout) == n_image_tokens(size, 16)
    assert sorted(layout[layout >= 0].tolist()) == list(range((rows * columns + 1) * 144))
    assert (layout == LINE_SEPARATOR).sum() == 12 * (rows + 1)
