"""Run lengths of many masks of one image at once: COCO's packed strings to numbers and back, without a Python loop.

``stages.labels.rle`` does one mask at a time, which for a thousand takes longer than what is then asked of them.
The strings are byte for byte those of pycocotools.
"""

from __future__ import annotations

import numpy as np

from stages.labels.rle import GROUPS


def unpack(text: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Packed counts of K masks -> their run lengths, the background's first.

    Args:
        text: (T,) uint8, the strings one after the other.
        ends: (K,) where each ends in ``text``.

    Returns:
        runs (R,) int64 and (K,), where each mask's runs end.
    """
    codes = text.astype(np.int64) - 48
    last = (codes & 32) == 0  # of a number
    number = np.concatenate([[0], np.cumsum(last)[:-1]]) if len(codes) else np.zeros(0, np.int64)
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]])) if len(codes) else np.zeros(0, np.int64)
    place = np.arange(len(codes)) - starts[number]
    values = np.zeros(len(starts), np.int64)
    np.add.at(values, number, (codes & 31) << (5 * place))
    negative = (codes[last] & 16) != 0
    values -= negative * (np.int64(1) << (5 * (place[last] + 1)))
    run_ends = np.cumsum(last)[np.asarray(ends, np.int64) - 1] if len(ends) else np.zeros(0, np.int64)
    return _undo_differences(values, run_ends), run_ends


def fill(text: np.ndarray, ends: np.ndarray, pixels: int) -> bool:
    """Whether the strings of K masks are such strings, and the runs of each are the pixels of its image.

    Args:
        text, ends: as for :func:`unpack`.
        pixels: of the image.
    """
    codes = text.astype(np.int64) - 48
    if not len(ends):
        return not len(codes)
    last = (codes & 32) == 0
    if codes.min() < 0 or codes.max() > 63 or not last[np.asarray(ends, np.int64) - 1].all():
        return False
    if np.diff(np.flatnonzero(last), prepend=-1).max() > GROUPS:
        return False
    lengths, run_ends = unpack(text, ends)
    first = np.concatenate([[0], run_ends[:-1]])
    return bool(lengths.min() >= 0 and (np.add.reduceat(lengths, first) == pixels).all())


def pack(runs: np.ndarray, run_ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of ``unpack``: text (T,) uint8 and (K,), where each mask's string ends."""
    values = np.asarray(runs, np.int64).copy()
    index = _index_in_mask(len(values), run_ends)
    late = np.flatnonzero(index > 2)
    values[late] -= np.asarray(runs, np.int64)[late - 2]
    characters = np.zeros((len(values), 13), np.uint8)
    open_ = np.ones(len(values), bool)
    for place in range(characters.shape[1]):
        low = values & 31
        values = values >> 5
        more = np.where(low & 16, values != -1, values != 0)
        characters[open_, place] = (low + 32 * more + 48)[open_]
        open_ &= more
        if not open_.any():
            break
    used = characters > 0
    ends = np.cumsum(used.sum(1))
    return characters[used], ends[np.asarray(run_ends, np.int64) - 1] if len(run_ends) else np.zeros(0, np.int64)


def of_sets(labels: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of K masks that are sets of regions.

    Args:
        labels: (H, W), the region of each pixel, 0 .. N - 1.
        members: (K, N) bool.

    Returns:
        runs (R,) and (K,), where each mask's runs end.
    """
    column_major = labels.T.ravel()
    starts = np.flatnonzero(np.concatenate([[True], column_major[1:] != column_major[:-1]]))
    value = column_major[starts]
    found = []
    for row in members:
        inside = row[value]
        changes = np.flatnonzero(inside[1:] != inside[:-1]) + 1
        bounds = np.concatenate([[0], starts[changes], [column_major.size]])
        runs = np.diff(bounds)
        found.append(np.concatenate([[0], runs]) if inside[0] else runs)
    ends = np.cumsum([len(runs) for runs in found]) if found else np.zeros(0, np.int64)
    return (np.concatenate(found) if found else np.zeros(0, np.int64)).astype(np.int64), ends.astype(np.int64)


def _index_in_mask(count: int, run_ends: np.ndarray) -> np.ndarray:
    """(R,) which of its mask's runs each is."""
    sizes = np.diff(np.concatenate([[0], run_ends])).astype(np.int64)
    return np.arange(count) - np.repeat(np.asarray(run_ends, np.int64) - sizes, sizes)


def _undo_differences(values: np.ndarray, run_ends: np.ndarray) -> np.ndarray:
    """From the fourth number of a mask on, each is the difference to the one two places before."""
    index = _index_in_mask(len(values), run_ends)
    runs = values.copy()
    for parity, first in ((1, 1), (0, 2)):
        chain = np.flatnonzero((index % 2 == parity) & (index >= first))
        if not len(chain):
            continue
        total = np.cumsum(values[chain])
        opens = np.flatnonzero(index[chain] == first)
        before = np.concatenate([[0], total])[opens]
        runs[chain] = total - np.repeat(before, np.diff(np.concatenate([opens, [len(chain)]])))
    return runs
