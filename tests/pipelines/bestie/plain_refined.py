"""Refined labels once more, with plain loops over images, components, pixels and instances, in NumPy."""

from __future__ import annotations

import math
from collections import deque

import numpy as np


def maxima(values, mask, window, threshold):
    """(y, x) in reading order."""
    radius = window // 2
    found = []
    for y, x in np.argwhere(mask):
        if not values[y, x] > threshold:
            continue
        best = True
        for v in range(max(y - radius, 0), min(y + radius + 1, values.shape[0])):
            for u in range(max(x - radius, 0), min(x + radius + 1, values.shape[1])):
                if mask[v, u] and (values[v, u] > values[y, x]
                                   or (values[v, u] == values[y, x] and (v, u) < (y, x))):
                    best = False
        if best:
            found.append((int(y), int(x)))
    return found


def four_connected(mask):
    """Lists of (y, x), by first pixel in reading order."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        cluster, queue = [], deque([start])
        while queue:
            y, x = queue.popleft()
            cluster.append((y, x))
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left:
                    left.remove(near)
                    queue.append(near)
        found.append(cluster)
    return found


def clusters(offset, mask, length, tolerance):
    """Means rounded down, (y, x), by first pixel in reading order."""
    wanted = sum(math.hypot(y, x) < length for y in range(-20, 21) for x in range(-20, 21))
    short = mask & (offset[0] ** 2 + offset[1] ** 2 < np.float32(length) ** 2)
    return [(sum(y for y, _ in cluster) // len(cluster), sum(x for _, x in cluster) // len(cluster))
            for cluster in four_connected(short) if wanted - tolerance < len(cluster) < wanted + tolerance]


def gaussian(maps, category, centre, sigma):
    radius = int(3 * sigma + 1)
    for y in range(maps.shape[1]):
        for x in range(maps.shape[2]):
            dy, dx = y - centre[0], x - centre[1]
            if max(abs(dy), abs(dx)) <= radius:
                maps[category, y, x] = max(maps[category, y, x], math.exp(-(dy * dy + dx * dx) / (2 * sigma ** 2)))


def mask_centre(pixels, kind, found):
    y, x = (sum(pixel[axis] for pixel in pixels) / len(pixels) for axis in (0, 1))
    if kind == "centroid":
        return math.floor(y + 1e-9), math.floor(x + 1e-9)
    if kind == "nearest":
        return min(pixels, key=lambda pixel: (round((pixel[0] - y) ** 2 + (pixel[1] - x) ** 2, 6), pixel))
    return found


def nearest(pixel, offset, centres):
    """Index of the first of the nearest centres."""
    y = np.float32(pixel[0]) + offset[0][pixel]
    x = np.float32(pixel[1]) + offset[1][pixel]
    distances = [(np.float32(v) - y) ** 2 + (np.float32(u) - x) ** 2 for v, u in centres]
    return int(np.argmin(distances))


def empty(classes, shape):
    return np.zeros((classes, *shape), np.float32), np.zeros((2, *shape), np.float32), np.zeros(shape, np.float32)


def paint(offset, weight, groups, centres, weights):
    for pixels, centre, value in zip(groups, centres, weights, strict=True):
        for y, x in pixels:
            offset[:, y, x] = centre[0] - y, centre[1] - x
            weight[y, x] = value


def refined(heat, offset, probability, semantic, components, settings, sigma):
    """One image: centre (C, H, W), offset (2, H, W), weight (H, W)."""
    result = empty(len(heat), semantic.shape)
    for number in range(1, components.max() + 1):
        mask = components == number
        if not mask.any():
            continue
        category = int(semantic[mask][0]) - 1
        wanted = settings.centres
        centres = maxima(heat[category], mask, wanted.window, wanted.threshold)
        scores = [heat[category][centre] for centre in centres]
        if wanted.clustering:
            for centre in clusters(offset, mask, wanted.offset, wanted.tolerance):
                far = all(math.hypot(centre[0] - y, centre[1] - x) > wanted.merge
                          for y, x in centres[:len(scores) - scores.count(None)])
                if heat[category][centre] > wanted.heat and far:
                    centres.append(centre)
                    scores.append(None)
        scores = [probability[category + 1][centre] if score is None else score
                  for centre, score in zip(centres, scores, strict=True)]
        if not 1 <= len(centres) <= settings.most:
            continue
        groups = [[] for _ in centres]
        for y, x in np.argwhere(mask):
            groups[nearest((int(y), int(x)), offset, centres)].append((int(y), int(x)))
        for pixels, centre, score in zip(groups, centres, scores, strict=True):
            if not pixels:
                continue
            if settings.weight == "heat_class":
                score = score * np.mean([probability[category + 1][pixel] for pixel in pixels])
            aim = mask_centre(pixels, settings.centre, centre)
            gaussian(result[0], category, aim, sigma)
            paint(result[1], result[2], [pixels], [aim], [score])
    return result


def by_points(offset, semantic, points, classes, sigma):
    """One image with known points."""
    result = empty(classes, semantic.shape)
    for category in range(classes):
        own = [(int(y), int(x)) for index, y, x in points if index == category]
        for centre in own:
            gaussian(result[0], category, centre, sigma)
        if not own:
            continue
        for y, x in np.argwhere(semantic == category + 1):
            pixel = (int(y), int(x))
            paint(result[1], result[2], [[pixel]], [own[nearest(pixel, offset, own)]], [1])
    return result
