"""Proposals that another program made, from COCO results: a JSON list of ``image_id``, ``segmentation``, ``score``.

Such files are large (a thousand masks of each image), so they are read in pieces: once to learn where each image's
entries are, and then each image's best ones.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.labels import rle
from stages.labels.coco import Entry
from stages.proposals.segments import Proposals, from_rles
from stages.runtime.errors import UserError, summarise
from stages.runtime.files import STRICT, is_finite

_CHUNK = 1 << 20
_LARGEST_ENTRY = 64 << 20


@dataclass(frozen=True)
class Place:
    """Where an image's entries are, the best scored first.

    Attributes:
        path: the file.
        start, end: first byte and last byte + 1 of an entry.
        score: its objectness.
    """

    path: Path
    start: int
    end: int
    score: float


def files(path: Path) -> list[Path]:
    """The JSON file, or those of a folder.

    Raises:
        UserError: nothing is there.
    """
    if path.is_dir():
        found = sorted(item for item in path.glob("*.json") if item.is_file())
        if not found:
            raise UserError(f"{path}: no .json file in this folder; proposals.source names COCO results")
        return found
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder; proposals.source names COCO results")
    return [path]


def find_entries(paths: Sequence[Path], image_ids: Collection[int]) -> tuple[dict[int, list[Place]], int]:
    """Where the entries of each image are.

    Args:
        paths: files of COCO results.
        image_ids: the images that are wanted; the entries of others are counted only.

    Returns:
        image id -> places, the best score first, equal ones as they come; and the number of entries of other images.

    Raises:
        UserError: a file that is not a JSON list, or entries without a whole ``image_id``, a finite ``score`` and a
            ``segmentation``; up to ten problems in one message.
    """
    wanted, other, problems = set(image_ids), 0, []
    images, scores = array("q"), array("d")
    owners, starts, ends = array("l"), array("q"), array("q")
    for number, path in enumerate(paths):
        for start, end, entry in entries(path):
            problem = _problem(entry)
            if problem or not isinstance(entry, dict):
                problems.append(f"{path.name}, byte {start}: {problem}")
            elif entry["image_id"] not in wanted:
                other += 1
            else:
                images.append(entry["image_id"])
                scores.append(entry["score"])
                owners.append(number)
                starts.append(start)
                ends.append(end)
    if problems:
        raise UserError(summarise(problems, f"{paths[0].parent}: {len(problems)} entries are no COCO results; correct "
                                            f"what wrote them:"))
    found: dict[int, list[Place]] = {}
    for row in np.lexsort((-np.asarray(scores), np.asarray(images))) if len(images) else ():
        found.setdefault(images[row], []).append(Place(paths[owners[row]], starts[row], ends[row], scores[row]))
    return found, other


def read_image(image: Entry, places: Sequence[Place], limit: int) -> tuple[Proposals, Counter[str]]:
    """The best proposals of an image.

    Args:
        image: COCO image.
        places: of its entries, best first.
        limit: proposals that are kept.

    Returns:
        The proposals, and how many entries were ``empty`` masks, ``duplicate`` masks (the best scored is kept) and
        ``left_out`` beyond the limit; what lies beyond it is not looked at.

    Raises:
        UserError: a mask of another image size, or a broken one.
    """
    masks: dict[str, tuple[rle.RLE, float]] = {}
    counts: Counter[str] = Counter()
    for number, place in enumerate(places):
        if len(masks) == limit:
            counts["left_out"] = len(places) - number
            break
        with open(place.path, "rb") as file:
            file.seek(place.start)
            entry = STRICT.decode(file.read(place.end - place.start).decode("utf-8"))
        try:
            mask = rle.from_segmentation(entry["segmentation"], image["height"], image["width"])
        except ValueError as error:
            raise UserError(f"{place.path}: image {image['id']}, the proposal at byte {place.start}: {error}; make the "
                            f"proposals on the images as they are in the data set") from None
        if rle.area(mask) == 0:
            counts["empty"] += 1
        elif mask["counts"] in masks:
            counts["duplicate"] += 1
        else:
            masks[mask["counts"]] = (mask, place.score)
    return from_rles((image["height"], image["width"]), [mask for mask, _ in masks.values()],
                     [score for _, score in masks.values()]), counts


def entries(path: Path) -> Iterator[tuple[int, int, object]]:
    """(first byte, last byte + 1, value) of the items of a JSON list, without the whole list in memory.

    Raises:
        UserError: the file is no JSON list; the place is named.
    """
    decoder, start = STRICT, 0
    # One character per byte, so that places in the text are places in the file; the texts that matter are ASCII.
    with open(path, encoding="latin-1", newline="") as file:
        window = _Window(file.read)
        if window.peek(3) == "\u00ef\u00bb\u00bf":  # a byte order mark
            window.skip(3)
        if window.next_sign() != "[":
            raise UserError(f"{path}: COCO results are a JSON list, this begins with {window.peek(1)!r}; of a COCO "
                            f"instance file, take its list of annotations")
        window.skip(1)
        if window.next_sign() == "]":
            window.skip(1)
        else:
            while True:
                window.next_sign()
                start = window.place
                value = _decode(window, decoder, path)
                yield start, window.place, value
                sign = window.next_sign()
                if sign not in (",", "]"):
                    raise _broken(path, window.place, "',' or ']' was expected")
                window.skip(1)
                if sign == "]":
                    break
        if window.next_sign():
            raise _broken(path, window.place, "something follows the list")


class _Window:
    """A piece of a text that is read on as needed."""

    def __init__(self, read: Callable[[int], str]) -> None:
        self.read, self.text, self.at, self.before = read, "", 0, 0

    @property
    def place(self) -> int:
        return self.before + self.at

    def more(self, size: int) -> bool:
        """Read on; False at the end of the file."""
        piece = self.read(size)
        self.text, self.before, self.at = self.text[self.at:] + piece, self.before + self.at, 0
        return bool(piece)

    def peek(self, size: int) -> str:
        while len(self.text) - self.at < size and self.more(_CHUNK):
            pass
        return self.text[self.at:self.at + size]

    def skip(self, size: int) -> None:
        self.at += size

    def next_sign(self) -> str:
        """Go to the next character that is no space; an empty text at the end of the file."""
        while True:
            sign = self.peek(1)
            if not sign or sign not in " \t\r\n":
                return sign
            self.skip(1)


def _decode(window: _Window, decoder: json.JSONDecoder, path: Path) -> object:
    size = _CHUNK
    while True:
        try:
            value, end = decoder.raw_decode(window.text, window.at)
        except RecursionError:
            raise _broken(path, window.place, "lists or objects are nested too deeply") from None
        except ValueError as error:  # also a number of thousands of digits, a key given twice, NaN
            if not isinstance(error, json.JSONDecodeError):
                raise _broken(path, window.place, str(error)) from None
            wrong = _broken(path, window.before + error.pos, error.msg)
            if len(window.text) - window.at > _LARGEST_ENTRY or not window.more(size):
                raise wrong from None
            size *= 2
            continue
        piece = window.text[window.at:end]
        try:
            if not piece.isascii():
                piece.encode("latin-1").decode("utf-8")
        except UnicodeDecodeError as error:
            raise _broken(path, window.place + error.start, "not UTF-8") from None
        window.at = end
        return value


def _broken(path: Path, place: int, reason: str) -> UserError:
    return UserError(f"{path}: not valid JSON (byte {place}: {reason})")


def _problem(entry: object) -> str:
    """What is wrong with an entry, or nothing."""
    if not isinstance(entry, dict):
        return f"an object was expected, found {entry!r:.40}"
    number, score = entry.get("image_id"), entry.get("score")
    if not isinstance(number, int) or isinstance(number, bool) or abs(number) >= 1 << 63:
        return f"image_id: a whole number was expected, found {number!r:.40}"
    if not is_finite(score):
        return f"score: a finite number was expected, found {score!r:.40}"
    return "" if "segmentation" in entry else "there is no segmentation"
