"""A Cityscapes of a few small pictures, in the folders and files that the data set's archives unpack."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.prepare.writing import save_picture

CITIES = {"train": ("aachen", "bochum"), "val": ("frankfurt",), "train_extra": ("augsburg",)}
KINDS = {"train": ("gtFine", "gtCoarse"), "val": ("gtFine", "gtCoarse"), "train_extra": ("gtCoarse",)}


def numbers(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """instanceIds of a street (H, W) uint16: sky, building, vegetation, road, sidewalk; two cars that touch, a group of
    cars, a person, a rider on a bicycle; the ego vehicle and a parking lot are void."""
    height, width = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    found = np.full(size, 11, np.uint16)
    found[y < 0.3 + 0.1 * rng.uniform()] = 23
    found[(y >= 0.3) & (x > 0.7)] = 21
    found[y >= 0.6] = 8
    found[(y >= 0.6) & (np.abs(x - 0.5) < 0.4)] = 7
    found[(y > 0.5) & (y < 0.55) & (x < 0.2)] = 9
    shift = 0.1 * rng.uniform()
    for value, left, top, w, h in ((26000, 0.2 + shift, 0.55, 0.2, 0.2), (26001, 0.35 + shift, 0.6, 0.2, 0.25),
                                   (26, 0.75, 0.6, 0.15, 0.08), (24000, 0.05, 0.5, 0.05, 0.3),
                                   (25000, 0.62, 0.5, 0.06, 0.15), (33000, 0.6, 0.62, 0.1, 0.12)):
        found[(x >= left) & (x < left + w) & (y >= top) & (y < top + h)] = value
    found[y > 0.95] = 1
    return found


def coarsened(fine: np.ndarray) -> np.ndarray:
    """As coarse labels are: nothing near an outline."""
    edge = np.zeros(fine.shape, bool)
    for axis in (0, 1):
        change = np.diff(fine.astype(int), axis=axis) != 0
        for ahead in (0, 1):
            part = [slice(None)] * 2
            part[axis] = slice(ahead, fine.shape[axis] - 1 + ahead)
            edge[tuple(part)] |= change
    return np.where(edge, 0, fine).astype(np.uint16)


def write_cityscapes(root: Path, per_city: int = 2, size: tuple[int, int] = (64, 128)) -> Path:
    """``leftImg8bit``, ``gtFine`` and ``gtCoarse`` with two cities of train, one of val and one of train_extra."""
    for folder, cities in CITIES.items():
        for city in cities:
            for frame in range(per_city):
                seed = len(city) * 100 + frame
                fine = numbers(size, seed)
                stem = f"{folder}/{city}/{city}_{frame:06d}_000019"
                rng = np.random.default_rng(seed)
                colours = rng.integers(0, 256, (40_000, 3)).astype(int)[fine]
                noisy = np.clip(colours + rng.normal(0, 8, colours.shape), 0, 255).astype(np.uint8)
                save_picture(root / "leftImg8bit" / f"{stem}_leftImg8bit.png", noisy)
                for kind in KINDS[folder]:
                    labels = fine if kind == "gtFine" else coarsened(fine)
                    save_picture(root / kind / f"{stem}_{kind}_instanceIds.png", labels)
                    save_picture(root / kind / f"{stem}_{kind}_labelIds.png",
                         np.where(labels >= 1000, labels // 1000, labels).astype(np.uint8))
    return root
