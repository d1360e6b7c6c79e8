"""Propagate extreme and background points over each object's crop and retrieve pseudo points (section 3.2.2).

Reads data/annotations/train_weak.json, data/dataset/images and models/exits/extractor; writes data/exits/points/ (one
.npz per image) and metrics/exits_points.json. The paper propagates anew in every training crop; here it is done once
per object, in the crop of inference, and the points are carried into the crops of training: that costs one pass
instead of one per epoch, and lets a changed threshold be tried without the extractor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.exits.settings import ExitsSettings, PropagationSettings
from pipelines.exits.train_extractor import EXTRACTOR
from stages.runtime import layout
from stages.runtime.files import read_npz, write_json, write_npz
from stages.runtime.progress import progress
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

POINTS = layout.method_data("exits") / "points"


def initial_labels(item: dict[str, Any], box: Any, window: tuple[int, int, int, int], side: int, cells: int,
                   inward: float) -> Any:
    """Labels (cells, cells) int8 before the propagation: P_FG, P_BG, and what is to be found inside the box.

    Args:
        item: annotation; without ``extreme_points`` there is no foreground.
        box: (4,) xyxy in crop pixels.
        window: of the crop.
        side: of the crop [px].
        cells: N.
        inward: delta as a share of ``side``; a point goes at most to the middle of the box.
    """
    import numpy as np

    from stages.cues.crops import cells_in_box, cells_of, points_in_crop
    from stages.labels.points import BACKGROUND, FOREGROUND, UNLABELLED

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


def retrieve_points(similarity: Any, labels: Any, settings: PropagationSettings) -> Any:
    """Pseudo points of a batch of crops (eq. 2 to 5).

    Args:
        similarity: (B, P, P).
        labels: (B, N, N) int8 of ``initial_labels``, N * N = P.
        settings: hops and thresholds.

    Returns:
        (B, N, N) int8 with the retrieved points added; unchanged where no foreground point is given.
    """
    import torch

    from stages.labels.points import BACKGROUND, FOREGROUND, PSEUDO_BACKGROUND, PSEUDO_FOREGROUND, UNLABELLED
    from stages.propagation.points import converged_scores, propagation_scores, retrieve, seed_rows, transition_matrix

    flat = labels.flatten(1)
    sources = torch.stack([seed_rows(flat == FOREGROUND), seed_rows(flat == BACKGROUND)], dim=1).to(similarity)
    transition = transition_matrix(similarity, settings.sinkhorn)
    if settings.hops:
        scores = propagation_scores(transition, sources, settings.hops)
    else:
        scores = converged_scores(transition, sources, settings.beta)
    given = (flat == FOREGROUND).any(1, keepdim=True)
    foreground, background = retrieve(scores[:, 0], scores[:, 1], (flat == UNLABELLED) & given, settings.foreground,
                                      settings.background)
    found = flat.clone()
    found[foreground], found[background] = PSEUDO_FOREGROUND, PSEUDO_BACKGROUND
    return found.view_as(labels)


def load_extractor(settings: ExitsSettings, device: Any) -> Any:
    """The warmed-up network, frozen."""
    from pipelines.exits.network import load_generator

    return load_generator(EXTRACTOR / "weights.pt", settings.extractor.encoder, settings.crops.side,
                          settings.extractor.mask_stride, device)


def main(params: Path) -> None:
    """Image by image; the objects of an image in batches."""
    settings = load_settings(params, runtime=RuntimeSettings, exits=ExitsSettings)
    import numpy as np
    import torch

    from pipelines.exits.objects import Pictures, fixed_crops, read_images
    from stages.cues.crops import object_box
    from stages.runtime import devices

    crops, chosen = settings.exits.crops, settings.exits.propagation
    device = devices.resolve(settings.runtime.device)
    images, _ = read_images(layout.WEAK["train"])
    with Work("exits-propagate", [EXTRACTOR / "weights.pt", layout.IMAGES, layout.WEAK["train"]],
              [crops, settings.exits.extractor, chosen]) as work:
        folder = work.subfolder("points")
        extractor = load_extractor(settings.exits, device)
        counts = np.zeros(5, np.int64)
        without = 0
        for image in progress(images, len(images), "points"):
            path = folder / f"{image.key}.npz"
            if not path.exists():
                views, boxes, windows = fixed_crops(image, crops, pictures := Pictures())
                labels = np.zeros((len(views), chosen.cells, chosen.cells), np.int8)
                for start in range(0, len(views), chosen.batch_size):
                    part = slice(start, start + chosen.batch_size)
                    known = zip(image.objects[part], boxes[part], windows[part], strict=True)
                    initial = [initial_labels(item, box, window, crops.side, chosen.cells, chosen.inward)
                               for item, box, window in known]
                    pixels = torch.from_numpy(views[part].transpose(0, 3, 1, 2).copy()).to(device)
                    similarity = extractor.similarity(pixels, torch.from_numpy(boxes[part]).to(device), chosen)
                    found = retrieve_points(similarity, torch.from_numpy(np.stack(initial)).to(device), chosen)
                    labels[part] = found.cpu().numpy()
                own = np.array([object_box(item) for item in image.objects], np.float64).reshape(-1, 4)
                categories = np.array([item["category_id"] for item in image.objects], np.int64)
                write_npz(path, labels=labels, windows=np.array(windows, np.int32).reshape(-1, 4), boxes=own,
                          categories=categories)
            else:
                labels = read_npz(path)["labels"]
            counts += [int((labels == value).sum()) for value in range(-2, 3)]
            without += int((np.abs(labels) != 1).all((1, 2)).sum())
        objects = sum(len(image.objects) for image in images)
        inside = int(counts[1:].sum())
        write_json(work.path("exits_points.json"), {
            "objects": objects, "objects_without_retrieved_points": without,
            "share_inside_boxes": {"pseudo_foreground": round(100 * counts[3] / max(inside, 1), 3),
                                   "pseudo_background": round(100 * counts[1] / max(inside, 1), 3)}}, indent=2)
        work.publish({"points": POINTS, "exits_points.json": layout.METRICS / "exits_points.json"})


if __name__ == "__main__":
    run_stage(main, __doc__)
