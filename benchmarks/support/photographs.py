"""Photographs of real size: JPEGs that take as long to read and decode as those of the benchmark, each another one."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

# (width, height) in pixels, in turn: the shapes of COCO, on which many of the benchmark's sets stand.
SIZES = ((640, 480), (480, 640), (640, 427), (500, 375))
_QUALITY = 90


def write_photographs(folder: Path, count: int) -> list[Path]:
    """`count` JPEGs of 60 to 100 KB, cut out of one large picture with coarse and fine structure."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    side = 2048
    picture = np.zeros((side, side, 3), np.float32)
    for cells, weight in ((8, 70), (64, 45), (512, 22), (2048, 6)):
        noise = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        planes = [
            Image.fromarray(noise[..., plane]).resize((side, side), Image.Resampling.BICUBIC) for plane in range(3)
        ]
        picture += weight * np.stack([np.asarray(plane) for plane in planes], axis=-1)
    pixels = Image.fromarray(np.clip(picture + 128, 0, 255).astype(np.uint8))
    paths = []
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        left, top = (int(rng.integers(0, side - length)) for length in (width, height))
        paths.append(folder / f"{number:06d}.jpg")
        pixels.crop((left, top, left + width, top + height)).save(paths[-1], quality=_QUALITY)
    return paths


def header_only(width: int, height: int) -> bytes:
    """A PNG that ends where its pixels would begin: its size can be read, and nothing else."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checked = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + checked + b"\0\0\0\0IDAT"


def write_headers(archive: Path, sizes: dict[str, tuple[int, int]]) -> None:
    """A zip with an image that is a header alone for each name."""
    with zipfile.ZipFile(archive, "w") as packed:
        for name, size in sizes.items():
            packed.writestr(name, header_only(*size))


if __name__ == "__main__":  # how large the photographs are, and how long one takes to decode
    import tempfile
    import time

    with tempfile.TemporaryDirectory() as temporary:
        made = write_photographs(Path(temporary), 20)
        started = time.perf_counter()
        for path in made:
            Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
        milliseconds = (time.perf_counter() - started) / len(made) * 1000
        size = sum(path.stat().st_size for path in made) / len(made) / 1000
        print(f"{size:.0f} KB and {milliseconds:.1f} ms to decode, on average")
