"""L-Net's loss with its gradient (WISE eq. 1) against loops over pixels."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measure import measure, row

ABOUT_SECONDS = 60
SETTINGS: dict[str, Any] = {"height": 375, "width": 500, "classes": 20, "points": 10}
SEED = 0


def rows() -> dict[str, dict[str, float]]:
    """``size`` is the number of pixels; seconds are for the four terms and the gradient.

    ``trained``: some blobs are right, some are missing, joined or false. ``early``: logits are noise, as before the
    training, with a blob at every other pixel.
    """
    pixels = SETTINGS["height"] * SETTINGS["width"]
    return {name: row(pixels, measure("benchmarks.lcfcn:ours", 5, name=name),
                      measure("benchmarks.lcfcn:loops", name=name)) for name in ("trained", "early")}


def inputs(name: str, height: int, width: int, classes: int, points: int) \
        -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (C + 1, H, W) float32, points (P, 2) yx and their classes (P,) from 1 on, two points per class."""
    rng = np.random.default_rng(SEED)
    yx = np.stack([rng.integers(0, height, points), rng.integers(0, width, points)], 1)
    of_points = 1 + np.arange(points) // 2 % classes
    logits = rng.standard_normal((classes + 1, height, width)).astype(np.float32)
    if name == "trained":
        logits *= 0.1
        logits[0] += 2
        rows, columns = np.mgrid[:height, :width]
        side = min(height, width) / 12
        for index in range(points + points // 2):
            row_, column = yx[index] if index < points else rng.integers(0, (height, width))
            near = np.exp(-((rows - row_) ** 2 + (columns - column) ** 2) / (2 * side**2))
            logits[of_points[index % points]] += 5 * near.astype(np.float32)
    return logits, yx, of_points


def _arguments() -> dict[str, int]:
    return {key: SETTINGS[key] for key in ("height", "width", "classes", "points")}


def ours(name: str, **changes: int) -> Callable[[], np.ndarray]:
    """The terms, then the gradient of their sum, flat."""
    import torch

    from pipelines.wise.blobs import make_points
    from pipelines.wise.location_loss import TERMS, location_losses

    array, yx, classes = inputs(name, **{**_arguments(), **changes})
    points = make_points(yx, classes, array.shape[1:])
    logits = torch.from_numpy(array).requires_grad_()

    def run() -> np.ndarray:
        terms = location_losses(logits, points)
        gradient, = torch.autograd.grad(torch.stack(list(terms.values())).sum(), logits)
        values = torch.stack([terms[term].detach() for term in TERMS])
        return torch.cat([values, gradient.flatten()]).numpy()

    return run


def loops(name: str, **changes: int) -> Callable[[], np.ndarray]:
    """The same numbers by loops over pixels, in float64."""
    array, yx, classes = inputs(name, **{**_arguments(), **changes})
    return lambda: plain_loss(array, yx, classes)


def plain_loss(array: np.ndarray, yx: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The four terms, then the gradient of their sum with respect to the logits, flat."""
    channels, height, width = array.shape
    points = list(dict.fromkeys((int(c), int(y), int(x)) for c, (y, x) in zip(classes, yx, strict=True)))
    share = np.zeros((channels, height, width))
    best = np.zeros((height, width), int)
    for y in range(height):
        for x in range(width):
            values = [math.exp(float(value) - float(array[:, y, x].max())) for value in array[:, y, x]]
            total = sum(values)
            share[:, y, x] = [value / total for value in values]
            best[y, x] = values.index(max(values))
    terms, gradient = [0.0] * 4, np.zeros((channels, height, width))

    def want(term: int, channel: int, y: int, x: int, weight: float = 1.0) -> None:
        """Add -weight * log S of a channel at a pixel."""
        terms[term] -= weight * math.log(share[channel, y, x])
        gradient[:, y, x] += weight * share[:, y, x]
        gradient[channel, y, x] -= weight

    for channel in range(channels):
        y, x = divmod(int(share[channel].argmax()), width)
        if channel == 0 or channel in {point[0] for point in points}:
            want(0, channel, y, x)
        else:
            value = share[channel, y, x]
            terms[0] -= math.log(1 - value)
            gradient[:, y, x] -= value / (1 - value) * share[:, y, x]
            gradient[channel, y, x] += value / (1 - value)
    for channel, y, x in points:
        want(1, channel, y, x)
    for channel, blob in plain_blobs(best):
        own = [point for point in points if point[0] == channel and point[1:] in blob]
        if not own:
            for y, x in blob:
                want(3, 0, y, x, 1 / len(blob))
        elif len(own) > 1:
            lines = [pixel for pixel in plain_lines(share[channel], [point[1:] for point in own]) if pixel in blob]
            for y, x in lines:
                want(2, 0, y, x, len(own) / len(lines))
    if len({point[1:] for point in points}) > 1:
        lines = plain_lines(share[1:].max(0), [point[1:] for point in points])
        for y, x in lines:
            want(2, 0, y, x, 1 / len(lines))
    return np.concatenate([terms, gradient.ravel()])


def plain_blobs(best: np.ndarray) -> list[tuple[int, set[tuple[int, int]]]]:
    """8-connected pixels of one class that is not the background, by flooding."""
    height, width = best.shape
    seen = np.zeros(best.shape, bool)
    found = []
    for y in range(height):
        for x in range(width):
            if best[y, x] == 0 or seen[y, x]:
                continue
            blob, waiting = {(y, x)}, deque([(y, x)])
            seen[y, x] = True
            while waiting:
                row_, column = waiting.popleft()
                for near in [(row_ + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                    if (0 <= near[0] < height and 0 <= near[1] < width and not seen[near]
                            and best[near] == best[y, x]):
                        seen[near] = True
                        blob.add(near)
                        waiting.append(near)
            found.append((int(best[y, x]), blob))
    return found


def plain_lines(values: np.ndarray, seeds: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pixels beside another basin of a watershed on the black top-hat (7 px), flooded from the seeds by height, age."""
    height, width = values.shape
    values = values.astype(np.float32)

    def window(array: np.ndarray, take: Callable[[np.ndarray], float]) -> np.ndarray:
        return np.array([[take(array[max(y - 3, 0):y + 4, max(x - 3, 0):x + 4]) for x in range(width)]
                         for y in range(height)], np.float32)

    heights = window(window(values, np.max), np.min) - values
    basins = np.zeros(values.shape, int)
    queue: list[tuple[float, int, int, int]] = []
    for number, (y, x) in enumerate(sorted(set(seeds)), start=1):
        basins[y, x] = number
        heapq.heappush(queue, (float(heights[y, x]), 0, y, x))
    age = 0
    while queue:
        _, _, y, x = heapq.heappop(queue)
        for near in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
            if 0 <= near[0] < height and 0 <= near[1] < width and not basins[near]:
                age += 1
                basins[near] = basins[y, x]
                heapq.heappush(queue, (float(heights[near]), age, *near))
    lines = []
    for y in range(height):
        for x in range(width):
            near_basins = [basins[near] for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
                           if 0 <= near[0] < height and 0 <= near[1] < width]
            if any(basin != basins[y, x] for basin in near_basins):
                lines.append((y, x))
    return lines
