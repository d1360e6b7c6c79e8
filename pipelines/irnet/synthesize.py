"""Choose the best class and instance at every pixel and write the labels (section 5.2).

Reads data/irnet/cams, data/irnet/propagated and data/annotations/train_weak.json; writes data/irnet/pseudo_labels.json
(COCO instances) and data/irnet/semantic/ (the reduced version: one PNG per image, value = category id, 0 background).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pipelines.irnet.infer_cams import CAMS
from pipelines.irnet.propagate import PROPAGATED
from pipelines.irnet.settings import IRNetSettings, SynthesisSettings
from stages.runtime import layout
from stages.runtime.files import read_json, read_npz
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

# How much of the score the area makes: less than the float16 in which scores are stored can tell apart.
_TIE = 1e-4
SEMANTIC = layout.method_data("irnet") / "semantic"


def instance_labels(scores: Any, classes: Any, settings: SynthesisSettings) -> list[tuple[int, Any, float]]:
    """Instances of one image from maps at its size.

    Args:
        scores: (P, H, W), not negative: one map per class, or per class and instance.
        classes: (P,) category id of each map.
        settings: threshold, and whether an instance is a map or a connected component of a class.

    Returns:
        (category id, bool mask (H, W), score) of each instance. The score is the largest value of its map within the
        mask (section 6.2), before the normalisation, which would make the best instance of every image equal; of two
        equal scores the larger area is above the other. Fragments have score 0.
    """
    from pipelines.irnet.instances import components_of, label_map

    labels, _ = label_map(scores, settings.threshold, settings.normalise, settings.threshold_kind)
    if settings.instances == "components":
        parts = components_of(labels, len(scores))
    else:
        parts = [(index, labels == index) for index in range(len(scores))]
    found = []
    for index, mask in parts:
        area = int(mask.sum())
        fragment = area < settings.fragment * mask.size
        if area == 0 or (fragment and settings.drop_fragments):
            continue
        score = 0.0 if fragment else (float(scores[index][mask].max()) + _TIE * area / mask.size) / (1 + _TIE)
        found.append((int(classes[index]), mask, round(score, 9)))
    return found


def _one(image: dict[str, Any], folder: Path, settings: IRNetSettings, wide: bool) -> list[dict[str, Any]]:
    """Labels of one image as annotations; its semantic PNG is written on the way."""
    import cv2
    import numpy as np

    from pipelines.irnet.instances import label_map
    from stages.labels import rle
    from stages.labels.maps import upsample_cells
    from stages.runtime.files import atomic_path

    chosen = settings.synthesis
    key, size = f"{layout.image_key(image)}.npz", (image["height"], image["width"])
    walked = read_npz(PROPAGATED / key)
    classes = walked["classes"]
    class_maps = read_npz(CAMS / key)["cams"] if chosen.scores == "cam" else walked["semantic"]
    class_maps = upsample_cells(class_maps, settings.grid, size)
    if chosen.instances == "components":
        maps, owners = class_maps, classes
    else:
        maps = upsample_cells(walked["scores"], settings.grid, size)
        owners = classes[walked["pairs"][:, 0]]
    instances = instance_labels(maps, owners, chosen)

    semantic, _ = label_map(class_maps, chosen.threshold, chosen.normalise, chosen.threshold_kind)
    ids = np.concatenate([[0], classes])[semantic + 1].astype(np.uint16 if wide else np.uint8)
    with atomic_path(folder / f"{layout.image_key(image)}.png") as temporary:
        cv2.imwrite(str(temporary), ids)
    return [{"image_id": image["id"], "category_id": category, "segmentation": rle.encode(mask), "score": score}
            for category, mask, score in instances]


def main(params: Path) -> None:
    """Every image on its own; then one file."""
    settings = load_settings(params, runtime=RuntimeSettings, irnet=IRNetSettings)
    from stages.labels.coco import write_instances

    weak = read_json(layout.WEAK["train"])
    # 255 means "undecided" in an 8-bit label picture, so more categories than 254 take 16 bits.
    wide = max(category["id"] for category in weak["categories"]) > 254
    with Work(__file__, [CAMS, PROPAGATED, layout.WEAK["train"]],
              [settings.irnet.synthesis, settings.irnet.grid]) as work:
        folder = work.subfolder("semantic")
        found = parallel_map(partial(_one, folder=folder, settings=settings.irnet, wide=wide), weak["images"],
                             settings.runtime, "labels")
        images = [{key: image[key] for key in ("id", "file_name", "width", "height")} for image in weak["images"]]
        write_instances(work.path("pseudo_labels.json"), images, weak["categories"],
                        [annotation for annotations in found for annotation in annotations])
        work.publish({"semantic": SEMANTIC, "pseudo_labels.json": layout.pseudo_labels("irnet")})


if __name__ == "__main__":
    run_stage(main, __doc__)
