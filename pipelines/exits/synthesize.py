"""Paste every object's mask into its image and write the labels (section 3.3).

Reads data/exits/probabilities and data/annotations; writes data/exits/pseudo_labels.json and, by the same generator,
which never saw them, data/exits/pseudo_labels_val.json. ``weak_id`` is the id of the object's weak annotation.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pipelines.exits.infer_masks import PROBABILITIES
from pipelines.exits.settings import CropSettings, ExitsSettings, SynthesisSettings
from stages.runtime import layout
from stages.runtime.files import read_npz
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work


def generated_mask(probabilities: Any, window: tuple[int, int, int, int], item: dict[str, Any], size: tuple[int, int],
                   settings: SynthesisSettings) -> tuple[Any, float]:
    """Mask and score of one object from the generator's probabilities.

    Args:
        probabilities: (m, m) in 0..1 over the window.
        window: of the crop in the image.
        item: its annotation.
        size: (H, W) of the image.
        settings: threshold, and what of the supervision is imposed on the mask.

    Returns:
        (H, W) bool and the mean probability within it (not in the paper); the box itself, with score 0, where the
        generator sees nothing.
    """
    from stages.cues.crops import object_box, paste
    from stages.cues.simple_masks import box_mask

    box = box_mask(object_box(item), size)
    values = paste(probabilities, window, size)
    mask = values >= settings.threshold
    if settings.inside_box:
        mask &= box
    if not mask.any():
        return box, 0.0
    score = float(values[mask].mean())
    if settings.extreme_points and "extreme_points" in item:
        for x, y in item["extreme_points"]:
            mask[min(max(round(y), 0), size[0] - 1), min(max(round(x), 0), size[1] - 1)] = True
    return mask, round(score, 6)


def simple_mask(kind: str, pixels: Any, item: dict[str, Any]) -> Any:
    """Mask (H, W) of one object without a network; ``pixels`` (H, W, 3) uint8."""
    from stages.cues.crops import object_box
    from stages.cues.simple_masks import box_mask, ellipse_mask, grabcut_mask

    size, box = pixels.shape[:2], object_box(item)
    points = item.get("extreme_points", ())
    if kind == "ellipse" and points:
        mask = ellipse_mask(points, size)
        return mask if mask.any() else box_mask(box, size)
    if kind == "grabcut":
        return grabcut_mask(pixels, box)
    if kind == "grabcut_points":
        # Discs, because a lone pixel is soon cut off; smaller ones in small objects.
        radius = min(6.0, (box[2] - box[0]) / 6, (box[3] - box[1]) / 6)
        return grabcut_mask(pixels, box, foreground_xy=points, radius=radius)
    return box_mask(box, size)


def _one(image: Any, split: str, crops: CropSettings, settings: SynthesisSettings) -> list[dict[str, Any]]:
    """Labels of one image."""
    from stages.cues.crops import object_box
    from stages.cues.simple_masks import box_mask
    from stages.labels import rle
    from stages.labels.images import read_rgb

    found = read_npz(PROBABILITIES / split / f"{image.key}.npz") if settings.masks == "generator" else {}
    pixels = None if found or not image.objects else read_rgb(layout.IMAGES / image.entry["file_name"])
    rows = []
    for index, item in enumerate(image.objects):
        left, top, right, bottom = object_box(item)
        score = 1.0
        if (right - left) * (bottom - top) < crops.min_box:
            mask = box_mask((left, top, right, bottom), image.size)
        elif found:
            x0, y0, x1, y1 = (int(value) for value in found["windows"][index])
            mask, score = generated_mask(found["probabilities"][index] / 255, (x0, y0, x1, y1), item, image.size,
                                         settings)
        else:
            mask = simple_mask(settings.masks, pixels, item)
        rows.append({"image_id": image.entry["id"], "category_id": item["category_id"],
                     "segmentation": rle.encode(mask), "score": score, "weak_id": item["id"]})
    return rows


def main(params: Path) -> None:
    """Every image on its own; then one file for each part."""
    settings = load_settings(params, runtime=RuntimeSettings, exits=ExitsSettings)
    from pipelines.exits.objects import read_images
    from stages.labels.coco import write_instances

    chosen, crops = settings.exits.synthesis, settings.exits.crops
    names = {"train": layout.pseudo_labels("exits"), "val": layout.method_data("exits") / "pseudo_labels_val.json"}
    with Work(__file__, [PROBABILITIES, layout.IMAGES, *layout.WEAK.values()], [crops, chosen]) as work:
        for split, path in names.items():
            images, categories = read_images(layout.WEAK[split])
            found = parallel_map(partial(_one, split=split, crops=crops, settings=chosen), images, settings.runtime,
                                 f"labels of {split}")
            entries = [{key: image.entry[key] for key in ("id", "file_name", "width", "height")} for image in images]
            write_instances(work.path(path.name), entries, categories, [row for rows in found for row in rows])
        work.publish({path.name: path for path in names.values()})


if __name__ == "__main__":
    run_stage(main, __doc__)
