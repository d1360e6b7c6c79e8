"""Training curves as DVCLive writes them, drawn as SVG."""

from __future__ import annotations

import csv
import html
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 340, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 22
POINTS = 240


@dataclass(frozen=True)
class Curve:
    """One quantity of one training.

    Attributes:
        training: folder of the training below ``models/<method>``.
        name: of the quantity.
        steps: (n,) float.
        values: (n,) float, finite.
    """

    training: str
    name: str
    steps: np.ndarray
    values: np.ndarray


def read_curves(models: Path) -> list[Curve]:
    """All curves under ``models/**/curves``, in order of path; tables without a finite value are left out."""
    curves = []
    for path in sorted(models.glob("**/curves/**/*.tsv")):
        # The folder of the *innermost* "curves" belongs to the training, what is below is DVCLive's.
        parts = path.relative_to(models).parts
        place = len(parts) - 1 - parts[::-1].index("curves")
        below = [part for part in parts[place + 1:] if part not in ("plots", "metrics")]
        steps, values = _read_table(path)
        if len(values):
            curves.append(Curve("/".join(parts[:place]) or models.name, "/".join(below).removesuffix(".tsv"),
                                steps, values))
    return curves


def _read_table(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a DVCLive table: a column ``step`` and the last other column that is no timestamp."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    names = [name for name in (rows[0] if rows else {}) if name not in ("step", "timestamp", None)]
    points = []
    for number, row in enumerate(rows):
        try:
            point = float(row.get("step") or number), float(row[names[-1]] or "nan")
        except (ValueError, IndexError, TypeError):
            continue
        if all(map(math.isfinite, point)):
            points.append(point)
    table = np.array(points, np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def thin(steps: np.ndarray, values: np.ndarray, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Average neighbours until at most ``points`` are left."""
    if len(steps) <= points:
        return steps, values
    groups = np.linspace(0, len(steps), points + 1).astype(int)[:-1]
    counts = np.diff(np.append(groups, len(steps)))
    return np.add.reduceat(steps, groups) / counts, np.add.reduceat(values, groups) / counts


def ticks(low: float, high: float, count: int = 3) -> list[float]:
    """About ``count`` round numbers within low..high."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = min((factor * magnitude for factor in (1, 2, 2.5, 5, 10)), key=lambda width: abs(width - raw))
    first = math.ceil(low / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick's label: whole numbers whole, from 10,000 on in thousands, others with 3 significant digits."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g}k"
    return f"{value:.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"


def svg(curve: Curve) -> str:
    """Draw a curve as an SVG element that takes its colours from the page (classes line, grid, tick)."""
    steps, values = thin(curve.steps, curve.values)
    low, high = float(values.min()), float(values.max())
    if low > 0 and low < 0.5 * high:
        low = 0.0
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    first, last = float(steps[0]), float(steps[-1])
    span = (last - first) or 1.0

    def x_of(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / span

    def y_of(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value - low) / (high - low))

    line = " ".join(f"{x_of(step):.1f},{y_of(value):.1f}" for step, value in zip(steps, values, strict=True))
    label = html.escape(f"{curve.name} of {curve.training}: from {number(curve.values[0])} at step {number(first)} to "
                        f"{number(curve.values[-1])} at step {number(last)}")
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
    for tick in ticks(low, high):
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{number(tick)}</text>')
    for step, anchor in ((first, "start"), (last, "end")):
        parts.append(f'<text class="tick" x="{x_of(step):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">'
                     f'{"step " if anchor == "end" else ""}{number(step)}</text>')
    if len(steps) == 1:
        parts.append(f'<circle class="dot" cx="{x_of(first):.1f}" cy="{y_of(float(values[0])):.1f}" r="3"/>')
    else:
        parts.append(f'<polyline class="line" points="{line}"/>')
    return "".join([*parts, "</svg>"])
