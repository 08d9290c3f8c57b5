"""Lazy references to images, read in place when they are needed."""

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mmeb.errors import MmebError

HEAD_BYTES = 1 << 16  # enough for the header of nearly every image; else the full file is read


class ImageRef(ABC):
    """A lazy reference to one image; cheap to make, to compare and to send to a worker process.

    References are equal where `key` is. `origin` (task and row, say) only words the errors.
    """

    origin: str

    @property
    @abstractmethod
    def key(self) -> str: ...

    @abstractmethod
    def read(self) -> bytes:
        """The file's bytes. Raises MmebError, naming origin and file, where it is missing."""

    def head(self) -> bytes:
        """The first bytes of the file, at least HEAD_BYTES of them or all."""
        return self.read()

    def stamp(self) -> str:
        """What changes when the content behind `key` does; cheap, read from no pixel."""
        return ""

    def decode(self, data: bytes | None = None) -> Image.Image:
        """The image as stored: its own mode, no EXIF turn; of `data`, its bytes, if they were read already.

        Raises MmebError where it is missing, broken or a bomb.
        """
        data = self.read() if data is None else data
        try:
            image = Image.open(io.BytesIO(data))
            image.load()
        except Exception as error:
            raise self._unreadable(error) from error
        return image

    def rgb(self, data: bytes | None = None) -> Image.Image:
        """The image in RGB as the reference gets it: alpha dropped, not composited; no EXIF turn."""
        image = self.decode(data).convert("RGB")
        image.info.pop("transparency", None)  # transformers 5 would composite by it even in RGB
        return image

    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, from the header alone."""
        head = self.head()
        try:
            with Image.open(io.BytesIO(head)) as image:
                return image.size
        except Image.DecompressionBombError as error:
            raise self._unreadable(error) from error
        except Exception:  # the header is longer than the head, or broken
            return self.decode().size

    def _unreadable(self, error: Exception) -> MmebError:
        where = f"{self.origin or 'image'}: {self.key}"
        if isinstance(error, Image.DecompressionBombError):
            limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            return MmebError(f"{where} is refused: it has more than {limit:,} pixels, as a decompression bomb would.")
        # Of a file that it does not know, the library tells an address in memory.
        why = "" if isinstance(error, UnidentifiedImageError) else f": {str(error).rstrip('.')}"
        return MmebError(f"{where} can't be decoded, it is damaged or no image{why}.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageRef) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, eq=False)
class FileImage(ImageRef):
    """An image in a single file."""

    path: Path
    origin: str = ""

    @property
    def key(self) -> str:
        return str(self.path)

    def stamp(self) -> str:
        try:
            status = self.path.stat()
        except OSError:
            return ""  # reading it will say what is wrong
        return f"{status.st_size}:{status.st_mtime_ns}"

    def read(self) -> bytes:
        return self._read(-1)

    def head(self) -> bytes:
        return self._read(HEAD_BYTES)

    def _read(self, count: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                return file.read(count)
        except OSError as error:
            raise MmebError(f"{self.origin or 'image'}: {self.path} can't be read: {error.strerror}.") from None


@dataclass(frozen=True, eq=False)
class MemoryImage(ImageRef):
    """An image that is in memory already; equal to itself alone."""

    image: Image.Image = field(repr=False)
    origin: str = ""

    @property
    def key(self) -> str:
        return f"memory:{id(self.image)}"

    def read(self) -> bytes:
        raise MmebError("An image in memory has no file.")

    def decode(self, data: bytes | None = None) -> Image.Image:
        return self.image.copy()

    def size(self) -> tuple[int, int]:
        return self.image.size


@dataclass(frozen=True, eq=False)
class MissingImage(ImageRef):
    """An image that is in none of the places where it could be; reading it raises MmebError."""

    path: str
    places: str
    origin: str = ""

    @property
    def key(self) -> str:
        return f"missing:{self.path}"

    def read(self) -> bytes:
        raise MmebError(f"{self}.")

    def __str__(self) -> str:
        return f"{self.origin}: the image {self.path} is missing (looked for in {self.places})"


def as_image_ref(image: ImageRef | Image.Image | Path | str | None) -> ImageRef | None:
    """Whatever a user may give as an image, as a reference."""
    if image is None or isinstance(image, ImageRef):
        return image
    if isinstance(image, Image.Image):
        return MemoryImage(image)
    return FileImage(Path(image))
