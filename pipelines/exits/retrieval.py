"""Points of a crop: those that the annotation gives, and those that are retrieved by propagation (section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.exits.network import Generator, load_generator
from pipelines.exits.settings import ExitsSettings, PropagationSettings
from stages.cues.crops import Window, cells_in_box, cells_of, object_box, points_in_crop
from stages.cues.objects import Crops, Image
from stages.labels.coco import Entry
from stages.labels.points import BACKGROUND, FOREGROUND, PSEUDO_BACKGROUND, PSEUDO_FOREGROUND, UNLABELLED
from stages.propagation.points import (
    converged_scores,
    propagation_scores,
    retrieve,
    score_difference,
    seed_rows,
    transition_matrix,
)
from stages.runtime.files import read_npz


def initial_labels(item: Entry, box: np.ndarray, window: Window, side: int, cells: int, inward: float) -> np.ndarray:
    """Labels (cells, cells) int8 before the propagation: P_FG, P_BG, and what is to be found inside the box.

    Args:
        item: annotation; without ``extreme_points`` there is no foreground.
        box: (4,) xyxy in crop pixels.
        window: of the crop.
        side: of the crop [px].
        cells: N.
        inward: delta as a share of ``side``; a point goes at most to the middle of the box.
    """
    inside = cells_in_box(box, side, cells)
    labels = np.where(inside, UNLABELLED, BACKGROUND).astype(np.int8)
    if "extreme_points" in item:
        points = points_in_crop(item["extreme_points"], window, side)
        # Top, left, bottom, right; y runs down, so that inward is +, +, -, - (the paper's signs take y as up).
        along_x, along_y = (min(inward * side, (box[2] - box[0]) / 2), min(inward * side, (box[3] - box[1]) / 2))
        points += np.array([[0, along_y], [along_x, 0], [0, -along_y], [-along_x, 0]])
        rows, columns = cells_of(points, side, cells).T
        labels[rows, columns] = FOREGROUND
    return labels


def retrieve_points(similarity: Tensor, labels: Tensor, settings: PropagationSettings) -> tuple[Tensor, Tensor]:
    """Pseudo points of a batch of crops (eq. 2 to 5).

    Args:
        similarity: (B, P, P).
        labels: (B, N, N) int8 of ``initial_labels``, N * N = P.
        settings: hops and thresholds.

    Returns:
        Labels (B, N, N) int8 with the retrieved points added, and the difference of the scores (B, N, N) in units of
        1 / P; unchanged and 0 where no foreground point is given.
    """
    flat = labels.flatten(1)
    sources = torch.stack([seed_rows(flat == FOREGROUND), seed_rows(flat == BACKGROUND)], dim=1).to(similarity)
    transition = transition_matrix(similarity, settings.sinkhorn)
    if settings.hops:
        scores = propagation_scores(transition, sources, settings.hops)
    else:
        scores = converged_scores(transition, sources, settings.beta)
    given = (flat == FOREGROUND).any(1, keepdim=True)
    difference = score_difference(scores[:, 0], scores[:, 1]) * given
    foreground, background = retrieve(difference, (flat == UNLABELLED) & given, settings.foreground,
                                      settings.background)
    found = flat.clone()
    found[foreground], found[background] = PSEUDO_FOREGROUND, PSEUDO_BACKGROUND
    return found.view_as(labels), difference.view(labels.shape)


def propagate_image(image: Image, crops: np.ndarray, boxes: np.ndarray, windows: Sequence[Window],
                    extractor: Generator, settings: PropagationSettings) -> dict[str, np.ndarray]:
    """Points of all objects of one image.

    Args:
        image: with K objects.
        crops, boxes, windows: of its objects, as ``stages.cues.objects.object_crops`` cuts them.
        extractor: the warmed-up network.
        settings: of the propagation.

    Returns:
        The arrays of ``stages.labels.points``.
    """
    device = next(extractor.parameters()).device
    cells = settings.cells
    labels = np.zeros((len(crops), cells, cells), np.int8)
    scores = np.zeros(labels.shape, np.float16)
    for start in range(0, len(crops), settings.batch_size):
        part = slice(start, start + settings.batch_size)
        known = zip(image.objects[part], boxes[part], windows[part], strict=True)
        initial = np.stack([initial_labels(item, box, window, crops.shape[1], cells, settings.inward)
                            for item, box, window in known])
        pixels = torch.from_numpy(crops[part].transpose(0, 3, 1, 2).copy()).to(device)
        similarity = extractor.similarity(pixels, torch.from_numpy(boxes[part]).to(device), settings)
        found, difference = retrieve_points(similarity, torch.from_numpy(initial).to(device), settings)
        labels[part], scores[part] = found.cpu().numpy(), difference.clamp(-1e4, 1e4).cpu().numpy()
    own = np.array([object_box(item) for item in image.objects], np.float64).reshape(-1, 4)
    categories = np.array([item["category_id"] for item in image.objects], np.int64)
    return {"labels": labels, "scores": scores, "windows": np.array(windows, np.int32).reshape(-1, 4), "boxes": own,
            "categories": categories}


def point_inference(weights: Path, settings: ExitsSettings, device: torch.device) -> \
        Callable[[str, Image, Crops], dict[str, np.ndarray]]:
    """A function of the sub-folder (of no account here), an image and its crops that propagates with trained weights.

    Args:
        weights: of the extractor.
        settings: of its network, the crops and the propagation.
        device: where it runs.
    """
    network = settings.extractor
    extractor = load_generator(weights, network.encoder, settings.crops.side, network.mask_stride, device)
    return lambda split, image, loaded: propagate_image(image, *loaded, extractor, settings.propagation)


def summary(folder: Path) -> dict[str, float]:
    """How much was retrieved, over the ``.npz`` files of a folder.

    Returns:
        ``objects``, of them ``objects_without_retrieved_points``, and how many percent of the points inside boxes are
        ``pseudo_foreground`` and ``pseudo_background``.
    """
    counts, objects, without = np.zeros(5, np.int64), 0, 0
    for path in sorted(folder.glob("*.npz")):
        labels = read_npz(path)["labels"]
        counts += [int((labels == value).sum()) for value in range(-2, 3)]
        objects += len(labels)
        without += int((np.abs(labels) != PSEUDO_FOREGROUND).all((1, 2)).sum())
    inside = max(int(counts[1:].sum()), 1)
    return {"objects": objects, "objects_without_retrieved_points": without,
            "pseudo_foreground": round(100 * int(counts[3]) / inside, 3),
            "pseudo_background": round(100 * int(counts[1]) / inside, 3)}
