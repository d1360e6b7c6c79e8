"""What the readers of all kinds of data sets agree on: images with what is known of them, before any is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from stages.labels.coco import Entry
from stages.prepare.settings import DatasetSettings
from stages.runtime.errors import UserError
from stages.runtime.files import TEMPORARY
from stages.runtime.seeds import generator
from stages.runtime.settings import nearest


@dataclass(frozen=True)
class SourceImage:
    """One image of a data set.

    Attributes:
        id: COCO image id.
        file_name: relative to ``folder``.
        folder: image folder; empty for rendered images.
        width, height: as the data set states them, None where it does not.
        tags: category ids, None where the data set has no tags of its own.
        objects: COCO annotations as the input has them (kinds coco, lvis, kitti and folder).
        tag_crops: tags per crop, as in ``stages.labels.tag_crops``; None where the data set has none of its own.
        masks: files that hold the masks (kinds voc, kitti, cityscapes and panoptic).
        segments: what the file of masks holds, in COCO panoptic's words (kind panoptic).
        coarse: whether the masks leave most outlines and small objects out (coarse labels of Cityscapes).
        scene: number of the scene to render (kind shapes).
        negative: ids of categories that were looked for and are not there (kind lvis); None where all were looked for.
        not_exhaustive: ids of categories of which not every object is labelled (kind lvis).
    """

    id: int
    file_name: str
    folder: str = ""
    width: int | None = None
    height: int | None = None
    tags: tuple[int, ...] | None = None
    objects: tuple[Entry, ...] = ()
    tag_crops: tuple[Entry, ...] | None = None
    masks: tuple[str, ...] = ()
    segments: tuple[Entry, ...] = ()
    coarse: bool = False
    scene: int = -1
    negative: tuple[int, ...] | None = None
    not_exhaustive: tuple[int, ...] = ()

    @property
    def path(self) -> Path:
        return Path(self.folder) / self.file_name

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"image {self.id} ({self.file_name})"


@dataclass(frozen=True)
class Source:
    """A data set: categories, the images of train and val, and the file that each part comes from (for messages)."""

    categories: list[Entry]
    parts: dict[str, list[SourceImage]]
    origin: dict[str, Path]
    files: list[Path] = field(default_factory=list)


def select(source: Source, dataset: DatasetSettings, afforded: int | None = None) -> Source:
    """Apply ``classes``, ``split``, ``budget_seconds`` and ``limit``, in this order; each part is sorted by id.

    Args:
        source: all of the data set.
        dataset: what is wanted of it.
        afforded: training images that the budget pays for; None without one.

    Raises:
        UserError: unknown class names, or a part that is left without images.
    """
    source = _keep_classes(source, dataset.classes)
    parts = {name: sorted(images, key=lambda image: image.id) for name, images in source.parts.items()}
    origin = dict(source.origin)
    if dataset.split is not None:
        parts = _split(parts["train"], dataset.split, dataset.seed, origin["train"])
        origin["val"] = origin["train"]
    for name, images in parts.items():
        if not images:
            raise UserError(f"{origin[name]}: no usable image for {name}; at least one is needed")
    if afforded is not None:
        parts["train"] = _draw(parts["train"], afforded, dataset.seed)
    if dataset.limit is not None:
        parts = {name: images[: dataset.limit] for name, images in parts.items()}
    return Source(source.categories, parts, origin, source.files)


def _keep_classes(source: Source, classes: Sequence[str] | None) -> Source:
    if classes is None:
        return source
    names = [category["name"] for category in source.categories]
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise UserError(f"dataset.classes: {unknown[0]!r} is not a class of the data set{nearest(unknown[0], names)} "
                        f"(it has {listed(names)})")
    categories = [category for category in source.categories if category["name"] in classes]
    kept = {category["id"] for category in categories}

    def known(ids: tuple[int, ...] | None) -> tuple[int, ...]:
        return tuple(number for number in ids or () if number in kept)

    def restrict(image: SourceImage) -> SourceImage:
        crops = image.tag_crops
        return replace(image, tags=None if image.tags is None else known(image.tags),
                       tag_crops=None if crops is None else tuple(
                           {**crop, "tags": list(known(tuple(crop["tags"])))} for crop in crops),
                       negative=None if image.negative is None else known(image.negative),
                       not_exhaustive=known(image.not_exhaustive),
                       objects=tuple(item for item in image.objects if item["category_id"] in kept))

    parts = {name: [restrict(image) for image in images] for name, images in source.parts.items()}
    return Source(categories, parts, source.origin, source.files)


def _split(images: list[SourceImage], split: int | float, seed: int, origin: Path) -> dict[str, list[SourceImage]]:
    """Take val out of ``images`` by chance; both parts keep the order of the ids."""
    count = split if isinstance(split, int) else max(1, round(split * len(images)))
    if count >= len(images):
        raise UserError(f"dataset.split: {split} takes {count} of the {len(images)} images of {origin} for val and "
                        f"leaves none for train; use a smaller number")
    chosen = set(generator(seed, "split").permutation(len(images))[:count].tolist())
    return {"train": [image for index, image in enumerate(images) if index not in chosen],
            "val": [image for index, image in enumerate(images) if index in chosen]}


def _draw(images: list[SourceImage], count: int, seed: int) -> list[SourceImage]:
    """``count`` of the images, or all where there are fewer, by chance, in order of the ids.

    Those of a smaller budget are among those of a larger one.
    """
    chosen = set(generator(seed, "budget").permutation(len(images))[:count].tolist())
    return [image for index, image in enumerate(images) if index in chosen]


def path_problem(folder: str | Path, file_name: str) -> str | None:
    """Why ``file_name`` must not be opened, or None: it has to be a file inside ``folder``, symbolic links followed."""
    pure = PurePosixPath(file_name)
    if pure.is_absolute() or ".." in pure.parts or "\0" in file_name:
        return f"file_name {file_name!r} leaves the image folder {folder}; give a path below that folder"
    if any(part.startswith(TEMPORARY) for part in pure.parts):
        return f"file_name {file_name!r}: names that begin with {TEMPORARY} are those of unfinished files; rename it"
    path = Path(folder) / file_name
    try:
        if not path.is_file():
            return f"no such file: {path}"
    except OSError as error:  # a name that is too long, for one
        return f"{path}: cannot be opened ({error.strerror})"
    if not path.resolve().is_relative_to(Path(folder).resolve()):
        return f"file_name {file_name!r} is a link that leaves the image folder {folder}; copy the file into it"
    return None


def check_names(names: Sequence[str], file: Path) -> None:
    """Names that paths are made of, before the file system is asked for them.

    Raises:
        UserError: one that no file system takes.
    """
    for name in names:
        if "\0" in name or any(len(part.encode()) > 240 for part in name.split("/")):
            raise UserError(f"{file}: {name[:40]!r}... is no name of an image: it is too long or holds a null "
                            f"character")


def read_lines(file: Path, missing: str) -> list[str]:
    """The lines of a list of names or of a table.

    Raises:
        UserError: there is no such file (``missing`` says what was expected), or it is no text.
    """
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{file}: {missing}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a UTF-8 text file (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def listed(names: Sequence[str], shown: int = 40) -> str:
    """Names with commas; LVIS has more of them than fit into a message."""
    more = f" and {len(names) - shown} more" * (len(names) > shown)
    return f"{', '.join(names[:shown])}{more}"


def check_classes(categories: Sequence[Entry], tags: Sequence[set[int]], dataset: DatasetSettings,
                  origin: Path) -> str | None:
    """Ask that every class be shown by some training image.

    Returns:
        What to tell the user where that is accepted (``limit``, ``budget_seconds``, ``allow_empty_classes``), else
        None.

    Raises:
        UserError: classes without images.
    """
    shown: set[int] = set().union(*tags) if tags else set()
    missing = [category["name"] for category in categories if category["id"] not in shown]
    if not missing:
        return None
    if len(missing) == len(categories):
        raise UserError(f"{origin}: no training image shows any of the classes ({listed(missing)}); "
                        f"nothing can be learnt from it")
    found = f"{len(missing)} of {len(categories)} classes have no training image: {listed(missing)}"
    if dataset.allow_empty_classes or dataset.limit is not None or dataset.budget_seconds is not None:
        return found
    present = [category["name"] for category in categories if category["id"] in shown]
    raise UserError(f"{origin}: {found}. Give images of them, or keep the others with "
                    f"`dataset.classes: [{listed(present)}]`, or set dataset.allow_empty_classes: true")
