"""Labels without an instance network, from a semantic map and cues alone: what the method is to be compared with.

Arrays of one image: a semantic map (H, W) of integers holds 0 background, 1.. classes, IGNORE (-1) undecided; cues are
rows (class index from 0, y, x) in whole pixels. Labels are (H, W) int32, 0 or the row of the cue, counted from 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipelines.bestie.transfer import candidate_components, components_of


def split_by_nearest(semantic: np.ndarray, cues: np.ndarray, smallest: int = 1) -> np.ndarray:
    """Components of the map, each split among the cues of its class inside it: a pixel goes to the nearest one.

    Args:
        semantic: see above.
        cues: those outside every component of their class have no label.
        smallest: components with fewer pixels are left out, as are those without a cue [px].
    """
    components = candidate_components(semantic, sorted(set(cues[:, 0].tolist())), smallest)
    owner = components_of(cues, components, semantic)
    labels = np.zeros(semantic.shape, np.int32)
    for component in np.unique(owner[owner > 0]).tolist():
        rows = np.flatnonzero(owner == component)
        y, x = np.nonzero(components == component)
        labels[y, x] = rows[_squares(y, x, cues[rows]).argmin(0)] + 1
    return labels


def discs(semantic: np.ndarray, cues: np.ndarray, smallest: int = 1) -> np.ndarray:
    """Discs around the cues, each as large as the class's area in the map divided by its cues.

    Where discs overlap, a pixel goes to the nearest cue, of any class.

    Args:
        semantic: see above.
        cues: all have a disc, unless their class has no pixel in the map.
        smallest: discs of a smaller area are left out [px].
    """
    areas = np.array([(semantic == row[0] + 1).sum() / (cues[:, 0] == row[0]).sum() for row in cues])
    y, x = (axis.ravel() for axis in np.indices(semantic.shape))
    squares = _squares(y, x, cues)
    reach = np.where(areas >= smallest, areas / np.pi, 0.0)[:, None]
    squares = np.where(squares < reach, squares, np.inf)
    found = np.where(np.isfinite(squares).any(0), squares.argmin(0) + 1, 0) if len(cues) else np.zeros(len(y))
    return found.reshape(semantic.shape).astype(np.int32)


SOURCES: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "nearest_point": split_by_nearest, "discs": discs,
}
"""By their names in ``SynthesisSettings.source``."""


def _squares(y: np.ndarray, x: np.ndarray, cues: np.ndarray) -> np.ndarray:
    """(n, P) squared distances of P pixels to n cues [px squared]."""
    return (y - cues[:, 1:2]) ** 2.0 + (x - cues[:, 2:3]) ** 2.0
