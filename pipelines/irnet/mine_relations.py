"""Find the confident areas of the attention maps and refine them by dense CRF (section 4.2).

Reads data/irnet/cams and data/dataset/images; writes data/irnet/relations, one .npz per image: `classes` (K,) category
ids and `labels` (H, W) uint8 at the image's size: 0 background, k for classes[k - 1], 255 for what is not confident.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pipelines.irnet.infer_cams import CAMS
from pipelines.irnet.settings import IRNetSettings, RelationSettings
from stages.runtime import layout
from stages.runtime.files import read_json, read_npz, write_npz
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

RELATIONS = layout.method_data("irnet") / "relations"


def confident_areas(image, cams, settings: RelationSettings):  # type: ignore[no-untyped-def]
    """Pseudo class map of one image.

    Foreground: the class with the highest attention where that exceeds ``foreground``; background: where no
    attention exceeds ``background``. Each of the two partitions is refined by its own dense CRF, and a pixel is
    confident where the first says foreground, or neither does.

    Args:
        image: (H, W, 3) uint8 RGB.
        cams: (K, H, W) float in 0..1; K <= 254.
        settings: thresholds and CRF.

    Returns:
        (H, W) uint8: 0 background, 1..K classes, 255 neither.
    """
    import numpy as np

    from stages.propagation.dense_crf import crf_labels

    height, width = image.shape[:2]
    if len(cams) == 0:
        return np.zeros((height, width), np.uint8)
    best, highest = cams.argmax(0) + 1, cams.max(0)
    crf = settings.crf
    refined = []
    for threshold in (settings.foreground, settings.background):
        labels = np.where(highest > threshold, best, 0)
        if crf.iterations:
            labels = crf_labels(image, labels, len(cams) + 1, gt_prob=crf.confidence, iterations=crf.iterations,
                                gaussian_sxy=crf.gaussian_xy, gaussian_compat=crf.gaussian_weight,
                                bilateral_sxy=crf.bilateral_xy, bilateral_srgb=crf.bilateral_rgb,
                                bilateral_compat=crf.bilateral_weight)
        refined.append(labels)
    foreground, background = refined
    found = np.where(foreground > 0, foreground, np.where(background == 0, 0, 255))
    return found.astype(np.uint8)


def _one(image: dict[str, Any], folder: Path, settings: IRNetSettings) -> None:
    import numpy as np

    from stages.labels.images import read_rgb
    from stages.labels.maps import upsample_cells

    stored = read_npz(CAMS / f"{layout.image_key(image)}.npz")
    cams = upsample_cells(stored["cams"], settings.grid, (image["height"], image["width"]))
    pixels = read_rgb(layout.IMAGES / image["file_name"])
    write_npz(folder / f"{layout.image_key(image)}.npz", classes=np.asarray(stored["classes"]),
              labels=confident_areas(pixels, cams, settings.relations))


def main(params: Path) -> None:
    """Every image on its own, on all workers."""
    settings = load_settings(params, runtime=RuntimeSettings, irnet=IRNetSettings)
    images = read_json(layout.WEAK["train"])["images"]
    with Work(__file__, [CAMS, layout.IMAGES], [settings.irnet.relations, settings.irnet.grid]) as work:
        folder = work.subfolder("relations")
        missing = [image for image in images if not (folder / f"{layout.image_key(image)}.npz").exists()]
        parallel_map(partial(_one, folder=folder, settings=settings.irnet), missing, settings.runtime, "relations")
        work.publish({"relations": RELATIONS})


if __name__ == "__main__":
    run_stage(main, __doc__)
