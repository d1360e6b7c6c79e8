"""Draw what the chain saw in a few training images, for the report.

Reads the intermediates of data/exits; writes data/exits/gallery/ (JPEG pictures and panels.json).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.exits.infer_masks import PROBABILITIES
from pipelines.exits.propagate import POINTS
from stages.runtime import layout
from stages.runtime.files import read_npz
from stages.runtime.settings import load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

GALLERY = layout.method_data("exits") / "gallery"
_GREEN, _RED, _YELLOW = (40, 170, 60), (235, 50, 50), (255, 215, 0)


def draw_points(pixels: Any, labels: Any, windows: Any) -> Any:
    """Retrieved and given points of all objects on an image.

    Args:
        pixels: (H, W, 3) uint8.
        labels: (K, N, N) int8 of ``propagate``.
        windows: (K, 4) of the crops.

    Returns:
        (H, W, 3) uint8: given foreground yellow, retrieved foreground red, retrieved background green. Objects are
        drawn from the largest to the smallest, each hiding what others say inside its box.
    """
    import numpy as np

    from stages.labels.drawing import faded
    from stages.labels.points import BACKGROUND, FOREGROUND, PSEUDO_BACKGROUND, PSEUDO_FOREGROUND

    picture = faded(pixels)
    size = picture.shape[:2]
    whole = np.zeros(size, np.int8)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in windows]
    for index in np.argsort(areas)[::-1]:
        x0, y0, x1, y1 = (int(value) for value in windows[index])
        height, width = y1 - y0, x1 - x0
        rows = np.floor((np.arange(height) + 0.5) * labels.shape[1] / height).astype(int)
        columns = np.floor((np.arange(width) + 0.5) * labels.shape[2] / width).astype(int)
        part = labels[index][rows[:, None], columns]
        view = whole[y0:y1, x0:x1]
        view[part != BACKGROUND] = part[part != BACKGROUND]
    for value, colour in ((PSEUDO_BACKGROUND, _GREEN), (PSEUDO_FOREGROUND, _RED), (FOREGROUND, _YELLOW)):
        chosen = whole == value
        picture[chosen] = np.rint(0.4 * picture[chosen] + 0.6 * np.array(colour)).astype(np.uint8)
    return picture


def panels(image: Any, pixels: Any) -> list[tuple[str, Any]]:
    """Titles and RGB pictures of one image: points, and the generator's probability."""
    import numpy as np

    from stages.cues.crops import paste
    from stages.labels.drawing import heatmap

    points = read_npz(POINTS / "train" / f"{image.key}.npz")
    found = read_npz(PROBABILITIES / "train" / f"{image.key}.npz")
    highest = np.zeros(image.size, np.float32)
    for mask, window in zip(found["probabilities"], found["windows"], strict=True):
        x0, y0, x1, y1 = (int(value) for value in window)
        highest = np.maximum(highest, paste(mask / 255, (x0, y0, x1, y1), image.size))
    return [("points: given yellow, retrieved red, background green",
             draw_points(pixels, points["labels"], points["windows"])),
            ("generator", heatmap(highest, pixels))]


def main(params: Path) -> None:
    """Draw the first images."""
    from pipelines.exits.objects import read_images
    from stages.evaluation.settings import ReportSettings
    from stages.labels.images import read_rgb
    from stages.labels.panels import write_panels

    settings = load_settings(params, report=ReportSettings)

    images = read_images(layout.WEAK["train"])[0][:settings.report.gallery_images]
    with Work(__file__, [POINTS, PROBABILITIES, layout.WEAK["train"]],
              [settings.report.gallery_images]) as work:
        write_panels(work.subfolder("gallery"),
                     ((image.entry, panels(image, read_rgb(layout.IMAGES / image.entry["file_name"])))
                      for image in images))
        work.publish({"gallery": GALLERY})


if __name__ == "__main__":
    run_stage(main, __doc__)
