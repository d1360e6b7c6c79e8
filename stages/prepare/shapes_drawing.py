"""Outlines, surfaces, light and camera of the embedded data set (see ``shapes``).

Everything is drawn at ``SCALE`` times the image's size and averaged down. Local coordinates (u, v) of an object run
from -1 to 1 along its longest side, v down.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import replace

import cv2
import numpy as np

from stages.prepare.settings import ShapesSettings
from stages.prepare.shapes_scenes import Item, Scene

SCALE = 2
SKY_LABEL, GROUND_LABEL, FIRST = 0, 1, 2  # labels in a label map; FIRST + n is item n of the scene
_SPECK = 5  # px; a visible scrap smaller than this goes to what surrounds it
_HUE = {"disc": 0.02, "ring": 0.13, "bottle": 0.38, "fish": 0.57, "star": 0.8}  # where a class's hues are denser
_PART_HUE = {"disc": 0.33, "ring": 0.52, "bottle": 0.98, "fish": 0.14, "star": 0.8}  # the same for its own part


# ---------------------------------------------------------------------------------------------------- outlines

def _loop(radius: np.ndarray) -> np.ndarray:
    """A closed curve from its radius at equally spaced angles, N x 2 (u, v)."""
    angle = np.linspace(0, 2 * math.pi, len(radius), endpoint=False)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _wobble(rng: np.random.Generator, amount: float, count: int = 72) -> np.ndarray:
    """Factors near 1 along a closed curve, so that no two outlines are the same."""
    angle = np.linspace(0, 2 * math.pi, count, endpoint=False)
    factors = np.ones(count)
    for order in (2, 3, 4):
        factors += rng.normal(0, amount / order) * np.cos(order * angle + rng.uniform(0, 6.3))
    return factors


def outline(kind: str, rng: np.random.Generator) -> list[list[np.ndarray]]:
    """The outline of an object as fills; a fill is one contour, or an outer one and the hole in it."""
    if kind == "disc":
        return [[_loop(0.97 * _wobble(rng, 0.04)) * [1.0, rng.uniform(0.82, 1.0)]]]
    if kind == "ring":
        hole = rng.uniform(0.46, 0.58)
        jewel = np.array([[0.4, 0], [0, 0.42], [-0.4, 0], [0, -0.42]]) + [0.6, 0]
        squash = [1.0, rng.uniform(0.85, 1.0)]
        return [[_loop(0.88 * _wobble(rng, 0.02)) * squash, _loop(hole * _wobble(rng, 0.03)) * squash], [jewel]]
    if kind == "bottle":
        body, neck = rng.uniform(0.38, 0.48), rng.uniform(0.2, 0.26)
        side = np.array([[neck + 0.05, -1], [neck + 0.05, -0.66], [neck, -0.62], [neck, -0.46], [0.6 * body, -0.36],
                         [0.92 * body, -0.22], [body, -0.05], [body, 0.9], [0.85 * body, 1]])
        return [[np.concatenate([side, side[::-1] * [-1, 1]])]]
    if kind == "fish":
        tall = rng.uniform(0.46, 0.58)
        trunk = _loop(_wobble(rng, 0.03)) * [0.78, tall] + [-0.22, 0]
        tail = np.array([[0.42, 0], [0.98, -0.46], [0.84, 0], [0.98, 0.46]]) * [1, rng.uniform(0.85, 1.1)]
        return [[trunk], [tail]]
    if kind == "star":
        angle = np.linspace(0, 2 * math.pi, 80, endpoint=False)
        inner = rng.uniform(0.5, 0.58)
        spike = np.abs(((angle * 5 / (2 * math.pi)) % 1) * 2 - 1)
        return [[_loop((inner + (1 - inner) * spike ** 1.25) * _wobble(rng, 0.02, 80))]]
    if kind == "pole":
        half = rng.uniform(0.05, 0.075)
        return [[np.array([[-half, -1], [half, -1], [1.15 * half, 1], [-1.15 * half, 1]])]]
    raise ValueError(kind)


def _axes(item: Item) -> np.ndarray:
    """2 x 2 matrix from (u, v) to pixels (x, y) of the image, about the item's centre."""
    cos, sin = math.cos(item.angle), math.sin(item.angle)
    return np.array([[cos, -sin], [sin, cos]]) * item.size * np.array([-1.0 if item.flip else 1.0, 1.0])


def silhouette(item: Item, height: int, width: int) -> tuple[slice, slice, np.ndarray]:
    """Rows, columns and the uint8 mask inside them, of an item in the enlarged image (clipped to it)."""
    rng = np.random.default_rng([item.seed, 0])
    axes, centre = _axes(item), np.array([item.x + 0.5, item.y + 0.5])
    fills = [[(contour @ axes.T + centre) * SCALE - 0.5 for contour in fill] for fill in outline(item.kind, rng)]
    points = np.concatenate([contour for fill in fills for contour in fill])
    if item.kind == "pole":  # a pole is never thinner than about 3 pixels of the image, nor thicker than about 6
        half = np.linalg.norm(points[0] - points[1]) / 2
        want = float(np.clip(half, 1.5 * SCALE, 2.8 * SCALE))
        middle = np.array([(points[0] + points[1]) / 2] * 2 + [(points[2] + points[3]) / 2] * 2)
        points = middle + (points - middle) * want / half
        fills = [[points]]
    low = np.clip(np.floor(points.min(0)).astype(int) - 1, 0, [width * SCALE, height * SCALE])
    high = np.clip(np.ceil(points.max(0)).astype(int) + 2, 0, [width * SCALE, height * SCALE])
    mask = np.zeros(np.maximum(high - low, 0)[::-1], np.uint8)
    if mask.size:
        for fill in fills:
            cv2.fillPoly(mask, [np.round((contour - low) * 16).astype(np.int32) for contour in fill], 1, shift=4)
    return slice(low[1], high[1]), slice(low[0], high[0]), mask


# ------------------------------------------------------------------------------------------------------ labels

def _horizon_rows(scene: Scene, width: int) -> np.ndarray:
    """Row of the enlarged image at which the ground begins, per column."""
    rng = np.random.default_rng([scene.seed, 1])
    x = np.linspace(0, 1, width * SCALE)
    rows = np.full(width * SCALE, scene.horizon)
    for order in (1, 2, 3, 5):
        rows += 0.016 * width * rng.normal(0, 1 / order) * np.sin(order * 3.1 * x + rng.uniform(0, 6.3))
    return rows * SCALE


def _ground(scene: Scene, height: int, width: int) -> np.ndarray:
    """Bool map of the ground behind everything, enlarged."""
    if scene.horizon <= 0 or scene.horizon >= height:
        return np.full((height * SCALE, width * SCALE), scene.horizon <= 0)
    return np.arange(height * SCALE)[:, None] >= _horizon_rows(scene, width)[None]


def _label_map(scene: Scene, height: int, width: int) -> np.ndarray:
    """Height x width label map: for each pixel the label with the largest share of it."""
    large = np.where(_ground(scene, height, width), GROUND_LABEL, SKY_LABEL).astype(np.uint8)
    for number, item in enumerate(scene.items):
        rows, columns, mask = silhouette(item, height, width)
        large[rows, columns][mask > 0] = GROUND_LABEL if item.kind == "pole" else FIRST + number
    parts = large.reshape(height, SCALE, width, SCALE).transpose(0, 2, 1, 3).reshape(height, width, SCALE * SCALE)
    votes = (parts[..., :, None] == parts[..., None, :]).sum(-1)
    winner = votes.argmax(-1)  # on a tie, the upper left quarter
    return np.take_along_axis(parts, winner[..., None], axis=-1)[..., 0]


def _without_specks(labels: np.ndarray, count: int) -> np.ndarray:
    """Give scraps of things of a few pixels, whose colour is mixed anyway, to the commonest label around them."""
    for label in range(FIRST, FIRST + count):
        number, pieces, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=4)
        for piece in range(1, number):
            if stats[piece, cv2.CC_STAT_AREA] < _SPECK:
                scrap = pieces == piece
                around = cv2.dilate(scrap.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & (labels != label)
                if around.any():
                    labels[scrap] = np.bincount(labels[around]).argmax()
    return labels


def settle(scene: Scene, height: int, width: int, min_pixels: int) -> tuple[Scene, np.ndarray]:
    """Take things that show fewer than ``min_pixels`` out of the scene, and label what remains.

    Returns:
        The scene, and its height x width uint8 label map.
    """
    while True:
        labels = _without_specks(_label_map(scene, height, width), len(scene.items))
        area = np.bincount(labels.ravel(), minlength=FIRST + len(scene.items))[FIRST:]
        hidden = [n for n, item in enumerate(scene.items) if item.kind != "pole" and area[n] < min_pixels]
        if not hidden:
            return scene, labels
        worst = min(hidden, key=lambda n: area[n])  # one at a time: its absence may uncover another
        scene = replace(scene, items=scene.items[:worst] + scene.items[worst + 1:])


# ---------------------------------------------------------------------------------------------------- surfaces

def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, float(np.clip(saturation, 0, 1)), float(np.clip(value, 0, 1))),
                    np.float32)


def _clouds(rng: np.random.Generator, height: int, width: int, coarse: tuple[float, float]) -> np.ndarray:
    """Smooth noise of about zero mean and unit deviation, three octaves; ``coarse`` is the largest cell (y, x)."""
    total = np.zeros((height, width), np.float32)
    for octave, weight in enumerate((1.0, 0.6, 0.4)):
        size = [max(2, math.ceil(extent / (cell / 2.2 ** octave)) + 1)
                for extent, cell in zip((height, width), coarse, strict=True)]
        total += weight * cv2.resize(rng.standard_normal(size, np.float32), (width, height),
                                     interpolation=cv2.INTER_CUBIC)
    return total / max(float(total.std()), 1e-6)


def _sky(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Height x width x 3 float32: a gradient from clear, hazy, dusky or overcast, and clouds."""
    kind = int(rng.choice(4, p=[0.45, 0.2, 0.15, 0.2]))
    hue, saturation = [(0.58, 0.55), (0.56, 0.25), (0.05, 0.4), (0.6, 0.06)][kind]
    top = _colour(hue + rng.normal(0, 0.03), saturation + rng.normal(0, 0.08), rng.uniform(0.55, 0.9))
    low = _colour(hue + rng.normal(0, 0.05), 0.4 * saturation, rng.uniform(0.75, 0.97))
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky = top * (1 - ramp) + low * ramp
    cover = 1 / (1 + np.exp(-2.2 * (_clouds(rng, height, width, (height / 5, width / 3)) - rng.uniform(0, 1.6))))
    white = np.float32(rng.uniform(0.8, 1.0))
    return sky + (white - sky) * (cover * rng.uniform(0.3, 0.9))[..., None].astype(np.float32)


def _earth(rng: np.random.Generator, height: int, width: int, horizon: float) -> np.ndarray:
    """Height x width x 3 float32: grass, sand, soil or paving, coarser near the viewer."""
    kind = int(rng.choice(4, p=[0.38, 0.22, 0.22, 0.18]))
    hue, saturation, value = [(0.27, 0.5, 0.45), (0.11, 0.38, 0.7), (0.07, 0.45, 0.38), (0.08, 0.08, 0.5)][kind]
    base = _colour(hue + rng.normal(0, 0.03), saturation + rng.normal(0, 0.08), value + rng.normal(0, 0.07))
    other = _colour(hue + rng.normal(0, 0.05), saturation + rng.normal(0, 0.15), value + rng.normal(0, 0.15))
    flat = 0.35 if 0 < horizon < height else 0.9
    patches = _clouds(rng, height, width, (flat * 30, 30))
    grain = _clouds(rng, height, width, (flat * 9 if kind else 9, 9 if kind else 4))
    mix = 1 / (1 + np.exp(-1.5 * patches))
    ground = base + (other - base) * mix[..., None]
    near = np.clip((np.arange(height, dtype=np.float32) - max(horizon, 0)) / height, 0, 1)[:, None] * 0.7 + 0.3
    return ground * (1 + 0.13 * near * grain + 0.05 * patches)[..., None]


def _pebbles(image: np.ndarray, ground: np.ndarray, rng: np.random.Generator) -> None:
    """Stones and tufts: clutter that belongs to the ground, drawn in place in the enlarged image."""
    height, width = ground.shape
    for _ in range(int(rng.poisson(9))):
        x, y, size = int(rng.integers(width)), int(rng.integers(height)), float(rng.uniform(2, 7)) * SCALE / 2
        if not ground[y, x]:
            continue
        tone = image[y, x] * float(rng.choice([0.55, 0.7, 1.3, 1.5]))
        if rng.uniform() < 0.5:
            axes = (int(size) + 1, int(0.6 * size) + 1)
            cv2.ellipse(image, (x, y + 1), axes, 0, 0, 360, (tone * 0.55).tolist(), -1, cv2.LINE_AA)
            cv2.ellipse(image, (x, y), axes, 0, 0, 360, tone.tolist(), -1, cv2.LINE_AA)
        else:
            for _ in range(5):
                tip = (x + int(rng.normal(0, size)), y - int(rng.uniform(1, 2.2) * size))
                cv2.line(image, (x + int(rng.normal(0, 2)), y), tip, tone.tolist(), 1, cv2.LINE_AA)


def _edge(value: np.ndarray, softness: float) -> np.ndarray:
    """0 to 1 step at value 0, linear over the given softness."""
    return np.clip(value / softness + 0.5, 0, 1)


def part(kind: str, u: np.ndarray, v: np.ndarray, pixel: float) -> tuple[np.ndarray, np.ndarray]:
    """The part that tells a class: its coverage (0 to 1) and its pattern (0 dark, 1 light), over (u, v).

    Args:
        pixel: size of a pixel of the final image in (u, v); details are never much finer than two of them.
    """
    soft = 0.75 * pixel
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    if kind == "disc":
        pitch = max(0.21, 3.2 * pixel)
        dots = np.cos(2 * math.pi * u / pitch) + np.cos(2 * math.pi * v / pitch)
        return _edge(max(0.46, 4.2 * pixel) - radius, soft), 1 - _edge(dots - 0.35, 0.8)
    if kind == "ring":
        x, y = (u - 0.6) / 0.4, v / 0.42
        gem = 1 - (np.abs(x) + np.abs(y))
        facets = np.where((x > 0) ^ (y > 0), 1.0, 0.12)
        return _edge(gem, soft / 0.33), np.maximum(facets, _edge(0.16 - gem, 0.1))
    if kind == "bottle":
        pitch = max(0.2, 3.4 * pixel)
        return _edge(-0.4 - v, soft), _edge(np.cos(2 * math.pi * (v + 1) / pitch), 0.7)
    if kind == "fish":
        white, pupil = max(0.32, 3.4 * pixel), max(0.14, 1.5 * pixel)
        eye = np.hypot(u + 0.52, v + 0.04)
        gill = np.abs(np.hypot(u + 1.0, v) - 0.92)
        light = _edge(white - eye, soft)
        return (np.maximum(light, _edge(max(0.05, 0.7 * pixel) - gill, soft) * (np.abs(v) < 0.36)),
                light * _edge(eye - pupil, soft))
    if kind == "star":
        size = max(0.44, 4.0 * pixel)
        wheel = _edge(np.cos(4 * (angle + 1.6 * radius)), 0.9)
        return _edge(size - radius, soft), np.where(radius > size - 1.1 * pixel, 0.0, wheel)
    return np.zeros_like(u), np.zeros_like(u)


def _body_colour(item: Item, family: np.random.Generator, behind: np.ndarray, contrast: float) -> np.ndarray:
    """A colour of the shared palette, mostly (with probability ``contrast``) unlike the mean colour ``behind``."""
    rng = family if family.uniform() < 0.45 else np.random.default_rng([item.seed, 1])
    differ = rng.uniform() < contrast
    best, best_gap = np.zeros(3, np.float32), -1.0
    for _ in range(12):
        hue = rng.normal(_HUE[item.kind], 0.1) if rng.uniform() < 0.3 else rng.uniform()
        colour = _colour(hue, 0.75 * rng.beta(1.6, 2.4), 0.25 + 0.65 * rng.beta(2, 1.6))
        gap = float(np.abs(colour - behind).sum())
        if gap > best_gap:
            best, best_gap = colour, gap
        if not differ or gap > 0.55:
            return colour
    return best


def _texture(item: Item, u: np.ndarray, v: np.ndarray, pixel: float, mottle: np.ndarray) -> np.ndarray:
    """Factor near 1 on the body's brightness, from a pool that has nothing to do with the class."""
    rng = np.random.default_rng([item.seed, 2])
    strength, style = rng.uniform(0.05, 0.16), int(rng.integers(4))
    y, x = (int(rng.integers(max(1, size))) for size in mottle.shape)
    rough = np.roll(mottle, (y, x), (0, 1))[: u.shape[0], : u.shape[1]]
    if style == 0:
        return 1 + strength * rough
    turn, pitch = rng.uniform(0, math.pi), max(rng.uniform(0.2, 0.5), 4 * pixel)
    wave = np.sin(2 * math.pi * (u * math.cos(turn) + v * math.sin(turn)) / pitch + 0.8 * rough)
    if style == 1:
        return 1 + 0.9 * strength * wave
    if style == 2:
        return 1 + 0.5 * strength * rough + 0.35 * (rng.uniform() - 0.5) * (u * math.cos(turn) + v * math.sin(turn))
    return 1 - 1.5 * strength * (rough > 0.9) + 0.3 * strength * rough


def _surface(item: Item, colour: np.ndarray, rows: slice, columns: slice, mottle: np.ndarray) -> np.ndarray:
    """Unlit colours of an item over its patch, h x w x 3 float32."""
    y = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5) / SCALE - 0.5 - item.y
    x = (np.arange(columns.start, columns.stop, dtype=np.float32)[None] + 0.5) / SCALE - 0.5 - item.x
    back = np.linalg.inv(_axes(item)).astype(np.float32)
    u, v = back[0, 0] * x + back[0, 1] * y, back[1, 0] * x + back[1, 1] * y
    pixel = 1 / item.size
    body = colour * _texture(item, u, v, pixel, mottle)[..., None].astype(np.float32)
    if item.kind == "pole":
        return body
    rng = np.random.default_rng([item.seed, 3])
    hue = rng.normal(_PART_HUE[item.kind], 0.06)
    dark = _colour(hue + rng.normal(0, 0.1), rng.uniform(0.3, 0.9), rng.uniform(0.05, 0.28))
    light = _colour(hue, rng.uniform(0.6, 0.95), rng.uniform(0.85, 1))
    cover, pattern = part(item.kind, u, v, pixel)
    paint = dark + (light - dark) * pattern[..., None].astype(np.float32)
    return body + (paint - body) * cover[..., None].astype(np.float32)


def _shading(mask: np.ndarray, light: float, size: float) -> np.ndarray:
    """Lambert factor of a body that is rounded towards its outline, h x w float32."""
    padded = cv2.copyMakeBorder(mask, 2, 2, 2, 2, cv2.BORDER_REPLICATE)
    rim = max(0.45 * size * SCALE, 2.0)
    inward = np.clip(cv2.distanceTransform(padded, cv2.DIST_L2, 3) / rim, 0, 1)
    bulge = cv2.GaussianBlur(np.sqrt(inward * (2 - inward)), (0, 0), max(0.08 * size * SCALE, 0.8)) * rim
    slope_x = cv2.Sobel(bulge, cv2.CV_32F, 1, 0, scale=1 / 8)[2:-2, 2:-2]
    slope_y = cv2.Sobel(bulge, cv2.CV_32F, 0, 1, scale=1 / 8)[2:-2, 2:-2]
    facing = 1 - 0.75 * (slope_x * math.cos(light) + slope_y * math.sin(light))
    return np.clip(0.42 + 0.56 * facing / np.sqrt(1 + slope_x ** 2 + slope_y ** 2), 0.3, 1.45)


def _cast_shadow(image: np.ndarray, sky: np.ndarray, item: Item, rows: slice, columns: slice, mask: np.ndarray,
                 light: float) -> None:
    """Darken, in place, what lies behind an item on the side away from the light; the sky takes no shadow."""
    reach = int(np.clip(0.28 * item.size * SCALE, 3, 14)) if item.kind != "pole" else 5
    margin = 2 * reach
    top, left = rows.start - margin, columns.start - margin
    area = cv2.copyMakeBorder(mask, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0).astype(np.float32)
    shift = (-round(reach * math.sin(light)), -round(reach * math.cos(light)))
    soft = cv2.blur(cv2.blur(np.roll(area, shift, (0, 1)), (reach, reach)), (reach, reach))
    inside_rows = slice(max(top, 0), min(rows.stop + margin, image.shape[0]))
    inside_columns = slice(max(left, 0), min(columns.stop + margin, image.shape[1]))
    soft = soft[inside_rows.start - top: inside_rows.stop - top,
                inside_columns.start - left: inside_columns.stop - left]
    image[inside_rows, inside_columns] *= (1 - 0.5 * soft * ~sky[inside_rows, inside_columns])[..., None]


# ------------------------------------------------------------------------------------------------------- image

def _camera(image: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Average down, expose, blur a little, add sensor noise, round to uint8."""
    height, width = image.shape[0] // SCALE, image.shape[1] // SCALE
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    image = image * (rng.uniform(0.85, 1.1) * rng.normal(1, 0.03, 3)).astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 0.6)))
    grain = rng.standard_normal((height, width, 3), np.float32) + rng.standard_normal((height, width, 1), np.float32)
    image = image + grain * np.float32(noise * rng.uniform(0.5, 1.1) / math.sqrt(2)) * (0.6 + 0.6 * image)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def paint(scene: Scene, settings: ShapesSettings) -> np.ndarray:
    """The picture of a scene that ``settle`` has returned, height x width x 3 uint8 RGB."""
    height, width = settings.height, settings.width
    rng = np.random.default_rng([scene.seed, 2])
    ground = _ground(scene, height, width)
    sky = ~ground
    earth, heaven = (cv2.resize(layer.astype(np.float32), (width * SCALE, height * SCALE))
                     for layer in (_earth(rng, height, width, scene.horizon), _sky(rng, height, width)))
    image = np.where(ground[..., None], earth, heaven)
    _pebbles(image, ground, rng)
    mottle = _clouds(rng, height * SCALE, width * SCALE, (12, 12))
    for item in scene.items:
        rows, columns, mask = silhouette(item, height, width)
        if not mask.any():
            continue
        patch = image[rows, columns]
        if item.kind == "pole":
            wood = np.random.default_rng([item.seed, 1])
            colour = _colour(wood.normal(0.09, 0.03), wood.uniform(0.1, 0.5), wood.uniform(0.2, 0.7))
        else:
            family = np.random.default_rng([scene.seed, 3, item.family])
            colour = _body_colour(item, family, patch.mean((0, 1)), settings.contrast)
        _cast_shadow(image, sky, item, rows, columns, mask, scene.light)
        lit = _surface(item, colour, rows, columns, mottle) * _shading(mask, scene.light, min(item.size, 30))[..., None]
        np.copyto(patch, lit.astype(np.float32), where=mask[..., None] > 0)
        sky[rows, columns] &= mask == 0
    return _camera(image, rng, settings.noise)
