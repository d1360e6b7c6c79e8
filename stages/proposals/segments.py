"""The proposals of one image: kept as run lengths, asked as a whole, stored as one file.

A file holds ``size`` (2,) int32, [height, width]; ``scores`` (K,) float32, from the best on; ``counts`` (T,) uint8, the
K strings of COCO's packed run lengths one after the other; ``ends`` (K,) int64, where each of them ends in ``counts``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from stages.labels.coco import Entry
from stages.labels.rle import RLE
from stages.proposals import runs
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_npz


@dataclass(frozen=True)
class Proposals:
    """K masks of an image with their objectness, from the best on.

    Attributes:
        size: (height, width) of the image.
        scores: (K,) float32, descending, 0..1 for the built-in provider, else what the file says.
        counts, ends: packed run lengths, as in the file.
    """

    size: tuple[int, int]
    scores: np.ndarray
    counts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def rle(self, index: int) -> RLE:
        """One mask as COCO's RLE."""
        start = 0 if index == 0 else int(self.ends[index - 1])
        return {"size": list(self.size), "counts": self.counts[start:int(self.ends[index])].tobytes().decode("ascii")}

    def mask(self, index: int) -> np.ndarray:
        """One mask, (H, W) bool."""
        starts, ends, owner = self._foreground
        line = np.zeros(self.size[0] * self.size[1] + 1, np.int8)
        line[starts[owner == index]] += 1
        line[ends[owner == index]] -= 1
        return np.ascontiguousarray(np.cumsum(line[:-1], dtype=np.int8).reshape(self.size[::-1]).T).astype(bool)

    def masks(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Several masks, (n, H, W) bool."""
        found = np.zeros((len(indices), *self.size), bool)
        for place, index in enumerate(indices):
            found[place] = self.mask(int(index))
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """What the file holds."""
        return {"size": np.array(self.size, np.int32), "scores": self.scores.astype(np.float32),
                "counts": self.counts, "ends": self.ends}

    @cached_property
    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """(R,) the pixel, counted down the columns, at which each run ends, and (K,) where each mask's runs end."""
        lengths, run_ends = runs.unpack(self.counts, self.ends)
        total = np.cumsum(lengths)
        sizes = np.diff(np.concatenate([[0], run_ends]))
        return total - np.repeat(np.arange(len(sizes)) * (self.size[0] * self.size[1]), sizes), run_ends

    @cached_property
    def _foreground(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First pixel, last pixel + 1 and proposal of every run of foreground, pixels counted down the columns."""
        stops, run_ends = self._bounds
        index = np.arange(len(stops))
        sizes = np.diff(np.concatenate([[0], run_ends]))
        owner = np.repeat(np.arange(len(sizes)), sizes)
        odd = (index - np.repeat(run_ends - sizes, sizes)) % 2 == 1
        return stops[np.flatnonzero(odd) - 1], stops[odd], owner[odd]

    @cached_property
    def areas(self) -> np.ndarray:
        """(K,) pixels."""
        starts, ends, owner = self._foreground
        return np.bincount(owner, ends - starts, len(self)).astype(np.int64)

    @cached_property
    def boxes(self) -> np.ndarray:
        """(K, 4) int64 smallest boxes [x0, y0, x1, y1], the last two exclusive; zeros of an empty mask."""
        height = self.size[0]
        starts, ends, owner = self._foreground
        keep = ends > starts
        starts, ends, owner = starts[keep], ends[keep], owner[keep]
        left, right = starts // height, (ends - 1) // height
        wraps = right > left
        top, bottom = np.where(wraps, 0, starts % height), np.where(wraps, height - 1, (ends - 1) % height)
        boxes = np.zeros((len(self), 4), np.int64)
        boxes[np.unique(owner), :2] = np.iinfo(np.int64).max
        np.minimum.at(boxes[:, 0], owner, left)
        np.minimum.at(boxes[:, 1], owner, top)
        np.maximum.at(boxes[:, 2], owner, right + 1)
        np.maximum.at(boxes[:, 3], owner, bottom + 1)
        return boxes

    def containing(self, points: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
        """(K, P) bool: which proposals contain which points.

        Args:
            points: (P, 2) [x, y], pixel centres on integers; a point outside the image counts as the nearest pixel.
        """
        height, width = self.size
        place = np.floor(np.asarray(points, np.float64).reshape(-1, 2) + 0.5).astype(np.int64)
        pixel = np.clip(place[:, 0], 0, width - 1) * height + np.clip(place[:, 1], 0, height - 1)
        stops, run_ends = self._bounds
        sizes = np.diff(np.concatenate([[0], run_ends]))
        offset = np.arange(len(self)) * (height * width)
        line = stops + np.repeat(offset, sizes)
        passed = np.searchsorted(line, offset[:, None] + pixel[None], side="right") - (run_ends - sizes)[:, None]
        return passed % 2 == 1

    def intersections(self, mask: np.ndarray) -> np.ndarray:
        """(K,) pixels shared with a mask (H, W)."""
        total = np.concatenate([[0], np.cumsum(np.asarray(mask != 0).T.ravel(), dtype=np.int64)])
        starts, ends, owner = self._foreground
        return np.bincount(owner, total[ends] - total[starts], len(self)).astype(np.int64)

    def jaccards(self, mask: np.ndarray) -> np.ndarray:
        """(K,) intersection over union with a mask (H, W); 0 where both are empty."""
        both = self.intersections(mask)
        union = self.areas + int(np.count_nonzero(mask)) - both
        return both / np.maximum(union, 1)

    def best(self, mask: np.ndarray, among: np.ndarray | None = None) -> tuple[int, float] | None:
        """The proposal with the largest Jaccard index with a mask (H, W), the better scored of equal ones.

        Args:
            mask: (H, W).
            among: indices to choose from; all if left out.

        Returns:
            Its index and the Jaccard index; none where there is nothing to choose from.
        """
        indices = np.arange(len(self)) if among is None else np.sort(np.asarray(among, np.int64))
        if not len(indices):
            return None
        values = self.jaccards(mask)[indices]
        place = int(values.argmax())
        return int(indices[place]), float(values[place])

    def box_jaccards(self, box: Sequence[float], filled: bool = True) -> np.ndarray:
        """(K,) intersection over union with a box [x0, y0, x1, y1] (x1, y1 exclusive; cut at the image's border).

        Args:
            box: in the coordinates of COCO's boxes, in which pixel i reaches from i to i + 1; the filled box holds the
                pixels whose middle lies in it.
            filled: compare the masks themselves with the filled box; else their smallest boxes.
        """
        height, width = self.size
        if filled:
            inside = np.zeros(self.size, bool)
            x0, y0, x1, y1 = (max(0, int(np.ceil(value - 0.5))) for value in box)
            inside[y0:y1, x0:x1] = True
            return self.jaccards(inside)
        limits = np.array([width, height, width, height])
        x0, y0, x1, y1 = np.clip(np.asarray(box, np.float64), 0, limits)
        boxes = self.boxes
        across = np.minimum(boxes[:, 2], x1) - np.maximum(boxes[:, 0], x0)
        along = np.minimum(boxes[:, 3], y1) - np.maximum(boxes[:, 1], y0)
        both = np.maximum(across, 0) * np.maximum(along, 0)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return both / np.maximum(areas + max(x1 - x0, 0) * max(y1 - y0, 0) - both, 1e-9)


def dice(jaccard: float) -> float:
    """Dice of a Jaccard similarity: 2 J / (1 + J), which keeps the order."""
    return 2 * jaccard / (1 + jaccard)


def from_sets(labels: np.ndarray, members: np.ndarray, scores: np.ndarray) -> Proposals:
    """Proposals that are sets of regions: labels (H, W), members (K, N) bool, scores (K,) descending."""
    height, width = labels.shape
    return Proposals((height, width), scores.astype(np.float32), *runs.pack(*runs.of_sets(labels, members)))


def from_rles(size: tuple[int, int], rles: Sequence[RLE], scores: Sequence[float] | np.ndarray) -> Proposals:
    """Proposals of masks that are encoded already; equal scores keep their order."""
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    texts = [rles[index]["counts"].encode("ascii") for index in order]
    return Proposals(size, np.asarray(scores, np.float32)[order], np.frombuffer(b"".join(texts), np.uint8),
                     np.cumsum([len(text) for text in texts], dtype=np.int64))


def read_proposals(folder: Path, image: Entry) -> Proposals:
    """The stored proposals of a COCO image.

    Raises:
        UserError: there is no such file, it is damaged, or it belongs to an image of another size.
    """
    path = folder / f"{layout.image_key(image)}.npz"
    stored = read_npz(path)
    missing = {"size", "scores", "counts", "ends"} - set(stored)
    if missing:
        raise UserError(f"{path}: holds no {', '.join(sorted(missing))}: not a file of proposals; "
                        f"delete its folder and run `dvc repro` again")
    if not _fit(stored):
        raise UserError(f"{path}: scores, counts and ends do not fit each other: the file is damaged; delete its "
                        f"folder and run `dvc repro` again")
    height, width = (int(side) for side in stored["size"])
    if (height, width) != (image["height"], image["width"]):
        raise UserError(f"{path}: proposals of an image of {width} x {height} px, image {image['id']} has "
                        f"{image['width']} x {image['height']}; delete its folder and run `dvc repro` again")
    found = Proposals((height, width), stored["scores"], stored["counts"], stored["ends"])
    if not runs.fill(found.counts, found.ends, height * width):
        raise UserError(f"{path}: masks that do not fill their image: the file is damaged; delete its folder and run "
                        f"`dvc repro` again")
    return found


def _fit(stored: Mapping[str, np.ndarray]) -> bool:
    """Whether the arrays of a file are of their kinds, and as long as each other asks for."""
    size, scores, counts, ends = (stored[name] for name in ("size", "scores", "counts", "ends"))
    if size.shape != (2,) or any(values.dtype.kind not in "iu" for values in (size, ends)) or counts.dtype != np.uint8:
        return False
    if scores.dtype.kind != "f" or scores.ndim != 1 or scores.shape != ends.shape or counts.ndim != 1:
        return False
    sizes = np.diff(ends.astype(np.int64), prepend=0)
    return bool(np.isfinite(scores).all() and (sizes > 0).all() and sizes.sum() == len(counts)
                and (ends[-1:] == len(counts)).all())
