"""Where the rows and images of the benchmark come from: the hub, a folder, the built-in demo, or a user's files."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mmeb.data.hub_source import HUB_REPOSITORIES, HubSource
from mmeb.data.images.index import Archive, check_zip, is_archive
from mmeb.data.images.store import Folder, ImageStore
from mmeb.data.part import DataSource, Part, Source
from mmeb.demo import DEMO_MARKER, demo_folder
from mmeb.errors import MmebError
from mmeb.files import read_json
from mmeb.tasks import Task
from mmeb.tasks.train_subsets import TRAIN_SUBSETS

DOWNLOAD_MARKER = "mmeb-data.json"  # lies in a downloaded folder, and says which commit it holds

_INNER = ("MMEB-eval", "MMEB_Test_Instruct", "MMEB-V2", "image-query")  # what a folder of several repositories holds
_TRAIN = "MMEB-train"


def open_source(data: str | Path, *, revision: str | None = None, offline: bool = False) -> Source:
    """Open what `--data` names: `hub`, `instruct`, `demo` or a folder.

    `revision` pins the hub's data to a branch, tag or commit; the revision of `Source.describe` reopens the same data.
    With `offline`, or HF_HUB_OFFLINE set, no call leaves the machine. Raises MmebError where nothing is there.
    """
    if str(data) in HUB_REPOSITORIES:
        return HubSource.open(HUB_REPOSITORIES[str(data)], revision, offline=offline)
    folder = demo_folder() if str(data) == "demo" else Path(data).expanduser()
    if not folder.is_dir():
        names = ", ".join((*HUB_REPOSITORIES, "demo"))
        raise MmebError(f"There is no folder {folder}: --data takes {names}, or a folder.")
    source = FolderSource.evaluation(folder.resolve())
    if revision not in {None, source.describe().revision}:
        raise MmebError(f"{folder} does not hold revision {revision}: --revision chooses among commits on the hub.")
    return source


def source_of(task: Task, source: Source) -> Source:
    """Where a task's rows and images are: `source` for the benchmark's tasks, the files that a custom task names."""
    if task.rows is None:
        return source
    images = task.images or task.rows.parent
    if images.is_dir():
        return FileSource("folder", task.rows, ImageStore.within([images]))
    if is_archive(images):
        return FileSource("folder", task.rows, ImageStore((Archive(images),)))
    raise MmebError(f"The images {images} are neither a folder nor a zip or tar.")


def find_rows(tasks: Iterable[Task], source: Source) -> None:
    """Look for the rows of all these tasks, and download them where that is needed.

    Raises MmebError for those that are missing, which would otherwise end a run after hours.
    """
    for task in tasks:
        source_of(task, source).row_files(Part.of_task(task))


@dataclass(frozen=True)
class FileSource(Source):
    """A user's file of rows, and where its images are."""

    kind: str
    path: Path
    store: ImageStore

    def describe(self) -> DataSource:
        return DataSource(self.kind, str(self.path.resolve()))

    def row_files(self, part: Part) -> list[Path]:
        return [self.path]

    def images(self, part: Part) -> ImageStore:
        return self.store


@dataclass(frozen=True)
class FolderSource(Source):
    """A folder laid out as a repository of the benchmark. `tops` are the folders that may hold a part's folder."""

    folder: Path
    tops: tuple[Path, ...]
    _stores: dict[str, ImageStore] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def evaluation(cls, folder: Path) -> "FolderSource":
        """Test rows in either layout, and images beside them in folders, zips or tars."""
        outer = [folder.parent] if folder.name in _INNER else []
        return cls(folder, (folder, *(folder / name for name in _INNER), *outer))

    @classmethod
    def training(cls, folder: Path) -> "FolderSource":
        """TIGER-Lab/MMEB-train, or a folder around it."""
        folder = folder / _TRAIN if (folder / _TRAIN).is_dir() else folder
        return cls(folder, (folder,))

    def describe(self) -> DataSource:
        for marker in (top / DEMO_MARKER for top in (*self.tops, self.folder.parent)):
            if marker.is_file():
                content = read_json(marker)
                return DataSource("demo", ", ".join(f"{name} {value}" for name, value in content.items()))
        for marker in (top / DOWNLOAD_MARKER for top in self.tops):
            if marker.is_file():
                content = read_json(marker)
                return DataSource("folder", content["repository"], content["revision"])
        return DataSource("folder", str(self.folder))

    def row_files(self, part: Part) -> list[Path]:
        for top in self.tops:
            paths = [path for name in part.folders for path in (*top.glob(f"{name}.*"), *(top / name).glob("*"))]
            if files := part.select(path.relative_to(top).as_posix() for path in paths if path.is_file()):
                return [top / file for file in files]
        raise MmebError(self._missing(part))

    def images(self, part: Part) -> ImageStore:
        subset = part.name if part.split else ""
        if subset not in self._stores:
            self._stores[subset] = self._training_images(subset) if part.split else ImageStore.within(self.tops)
        return self._stores[subset]

    def _training_images(self, subset: str) -> ImageStore:
        archive = self.folder / "images_zip" / f"{subset}.zip"
        archives = [Archive(check_zip(archive))] if archive.is_file() else []
        folders = [top / name for top in (self.folder, self.folder.parent) for name in ("images", ".")]
        return ImageStore((*archives, *(Folder(folder, listing=False) for folder in folders if folder.is_dir())))

    def _missing(self, part: Part) -> str:
        if part.split is None:
            return (
                f"{self.folder} has no rows of {part.name}: expected {part.name}/test-*.parquet or {part.name}.jsonl, "
                "in it or in its folder MMEB-eval."
            )
        if (self.folder / part.name).is_dir():
            return f"{self.folder / part.name} has no {part.split}-*.parquet, or not all parts of it: download them."
        subsets = [name for name in TRAIN_SUBSETS if (self.folder / name).is_dir()]
        hint = f"it has {', '.join(subsets)}, which --subsets can name" if subsets else "it does not hold MMEB-train"
        return f"{self.folder} has no training rows of {part.name}: {hint}."
