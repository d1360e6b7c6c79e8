"""Propagate extreme and background points over each object's crop and retrieve pseudo points (section 3.2.2).

Reads data/annotations, data/dataset/images and models/exits/extractor; writes data/exits/points/{train,val}/ (one .npz
per image, see stages/labels/points.py) and metrics/exits_points.json. Those of val are never trained on: they are for a
generator that is shown the scores. The paper propagates anew in every training crop; here it is done once
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


def retrieve_points(similarity: Any, labels: Any, settings: PropagationSettings) -> tuple[Any, Any]:
    """Pseudo points of a batch of crops (eq. 2 to 5).

    Args:
        similarity: (B, P, P).
        labels: (B, N, N) int8 of ``initial_labels``, N * N = P.
        settings: hops and thresholds.

    Returns:
        Labels (B, N, N) int8 with the retrieved points added, and the difference of the scores (B, N, N) in units of
        1 / P; unchanged and 0 where no foreground point is given.
    """
    import torch

    from stages.labels.points import BACKGROUND, FOREGROUND, PSEUDO_BACKGROUND, PSEUDO_FOREGROUND, UNLABELLED
    from stages.propagation.points import (
        converged_scores,
        propagation_scores,
        retrieve,
        score_difference,
        seed_rows,
        transition_matrix,
    )

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


def load_extractor(settings: ExitsSettings, device: Any) -> Any:
    """The warmed-up network, frozen."""
    from pipelines.exits.network import load_generator

    return load_generator(EXTRACTOR / "weights.pt", settings.extractor.encoder, settings.crops.side,
                          settings.extractor.mask_stride, device)


def propagate_image(image: Any, extractor: Any, settings: ExitsSettings, pictures: Any) -> dict[str, Any]:
    """The arrays of ``stages.labels.points`` for all objects of one image."""
    import numpy as np
    import torch

    from pipelines.exits.objects import fixed_crops
    from stages.cues.crops import object_box

    crops, chosen = settings.crops, settings.propagation
    device = next(extractor.parameters()).device
    views, boxes, windows = fixed_crops(image, crops, pictures)
    labels = np.zeros((len(views), chosen.cells, chosen.cells), np.int8)
    scores = np.zeros(labels.shape, np.float16)
    for start in range(0, len(views), chosen.batch_size):
        part = slice(start, start + chosen.batch_size)
        known = zip(image.objects[part], boxes[part], windows[part], strict=True)
        initial = np.stack([initial_labels(item, box, window, crops.side, chosen.cells, chosen.inward)
                            for item, box, window in known])
        pixels = torch.from_numpy(views[part].transpose(0, 3, 1, 2).copy()).to(device)
        similarity = extractor.similarity(pixels, torch.from_numpy(boxes[part]).to(device), chosen)
        found, difference = retrieve_points(similarity, torch.from_numpy(initial).to(device), chosen)
        labels[part], scores[part] = found.cpu().numpy(), difference.clamp(-1e4, 1e4).cpu().numpy()
    own = np.array([object_box(item) for item in image.objects], np.float64).reshape(-1, 4)
    categories = np.array([item["category_id"] for item in image.objects], np.int64)
    return {"labels": labels, "scores": scores, "windows": np.array(windows, np.int32).reshape(-1, 4), "boxes": own,
            "categories": categories}


def summary(labels: list[Any]) -> dict[str, Any]:
    """How much was retrieved, from the label maps (K, N, N) of all images."""
    import numpy as np

    counts = np.array([sum(int((part == value).sum()) for part in labels) for value in range(-2, 3)])
    inside = max(int(counts[1:].sum()), 1)
    return {"objects": sum(len(part) for part in labels),
            "objects_without_retrieved_points": sum(int((np.abs(part) != 1).all((1, 2)).sum()) for part in labels),
            "share_inside_boxes": {"pseudo_foreground": round(100 * int(counts[3]) / inside, 3),
                                   "pseudo_background": round(100 * int(counts[1]) / inside, 3)}}


def main(params: Path) -> None:
    """Image by image; the objects of an image in batches."""
    settings = load_settings(params, runtime=RuntimeSettings, exits=ExitsSettings)
    from pipelines.exits.objects import Pictures, read_images
    from stages.runtime import devices

    chosen = settings.exits
    with Work(__file__, [EXTRACTOR / "weights.pt", layout.IMAGES, *layout.WEAK.values()],
              [chosen.crops, chosen.extractor, chosen.propagation]) as work:
        extractor = load_extractor(chosen, devices.resolve(settings.runtime.device))
        pictures, found = Pictures(), {}
        for split, path in layout.WEAK.items():
            folder = work.subfolder(f"points/{split}")
            images, _ = read_images(path)
            found[split] = []
            for image in progress(images, len(images), f"points of {split}"):
                file = folder / f"{image.key}.npz"
                if not file.exists():
                    write_npz(file, **propagate_image(image, extractor, chosen, pictures))
                found[split].append(read_npz(file)["labels"])
        figures = {split: summary(labels) for split, labels in found.items()}
        write_json(work.path("exits_points.json"), figures, indent=2)
        work.publish({"points": POINTS, "exits_points.json": layout.METRICS / "exits_points.json"})


if __name__ == "__main__":
    run_stage(main, __doc__)
