"""Training curves as DVCLive writes them, and lines of any kind, drawn as SVG."""

from __future__ import annotations

import csv
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.runtime.errors import UserError

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


@dataclass(frozen=True)
class Line:
    """One line of a drawing.

    Attributes:
        steps: (n,) float, n from 1 on.
        values: (n,) float, finite.
        kind: CSS class beside ``line``, which tells the lines of a drawing apart.
        low, high: (n,) float, the edges of a band around the line, or none.
    """

    steps: np.ndarray
    values: np.ndarray
    kind: str = ""
    low: np.ndarray | None = None
    high: np.ndarray | None = None


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
    """Steps and values of a DVCLive table: a column ``step`` and the last other column that is no timestamp.

    Raises:
        UserError: the file is no table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a table of a training ({error}); delete it, or take it back by "
                        f"`dvc checkout`") from None
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
    steps, values = curve.steps, curve.values
    return draw([Line(steps, values)], f"{curve.name} of {curve.training}: {course(steps, values, 'step')}", "step")


def course(steps: np.ndarray, values: np.ndarray, axis: str) -> str:
    """What a line does, in words, for those who do not see it."""
    return (f"from {number(values[0])} at {axis} {number(steps[0])} to {number(values[-1])} at {axis} "
            f"{number(steps[-1])}")


def draw(lines: Sequence[Line], label: str, axis: str) -> str:
    """Draw lines over each other, on common axes, as an SVG element that takes its colours from the page.

    Args:
        lines: at least one; the first lies below.
        label: the drawing in words, plain text.
        axis: what the steps count.

    Returns:
        An element with the classes line, dot, band, grid and tick.
    """
    thinned = [_thinned(line) for line in lines]
    low, high = _range(thinned)
    first, last = min(float(line.steps[0]) for line in thinned), max(float(line.steps[-1]) for line in thinned)
    span = (last - first) or 1.0

    def x_of(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / span

    def y_of(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value - low) / (high - low))

    def points(steps: np.ndarray, values: np.ndarray) -> str:
        return " ".join(f"{x_of(step):.1f},{y_of(value):.1f}" for step, value in zip(steps, values, strict=True))

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(label)}">']
    for tick in ticks(low, high):
        edge = y_of(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{edge:.1f}" y2="{edge:.1f}"/>'
                     f'<text class="tick" x="{LEFT - 6}" y="{edge + 3.5:.1f}" text-anchor="end">{number(tick)}</text>')
    for step, anchor in ((first, "start"), (last, "end")):
        parts.append(f'<text class="tick" x="{x_of(step):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">'
                     f'{f"{html.escape(axis)} " if anchor == "end" else ""}{number(step)}</text>')
    for line in thinned:
        if line.low is not None and line.high is not None:
            around = points(np.append(line.steps, line.steps[::-1]), np.append(line.low, line.high[::-1]))
            parts.append(f'<polygon class="{f"band {line.kind}".strip()}" points="{around}"/>')
    for line in thinned:
        where = points(line.steps, line.values)
        if len(line.steps) == 1:
            x, y = where.split(",")
            parts.append(f'<circle class="{f"dot {line.kind}".strip()}" cx="{x}" cy="{y}" r="3"/>')
        else:
            parts.append(f'<polyline class="{f"line {line.kind}".strip()}" points="{where}"/>')
    return "".join([*parts, "</svg>"])


def _thinned(line: Line) -> Line:
    steps, values = thin(line.steps, line.values)
    low, high = (edge if edge is None else thin(line.steps, edge)[1] for edge in (line.low, line.high))
    return Line(steps, values, line.kind, low, high)


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    """Ends of the axis of values: from 0 on where that leaves the lines the upper half, and never of no length."""
    edges = [edge for line in lines for edge in (line.values, line.low, line.high) if edge is not None]
    low, high = min(float(edge.min()) for edge in edges), max(float(edge.max()) for edge in edges)
    if low > 0 and low < 0.5 * high:
        low = 0.0
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    return low, high
