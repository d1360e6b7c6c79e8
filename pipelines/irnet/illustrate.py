"""Draw what the chain saw in a few training images, for the report.

Reads the intermediates of data/irnet; writes data/irnet/gallery/ (JPEG pictures and panels.json).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.irnet.infer_cams import CAMS
from pipelines.irnet.infer_fields import FIELDS
from pipelines.irnet.mine_relations import RELATIONS
from pipelines.irnet.propagate import PROPAGATED
from pipelines.irnet.settings import IRNetSettings
from stages.runtime import layout
from stages.runtime.files import read_json, read_npz
from stages.runtime.settings import load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

GALLERY = layout.method_data("irnet") / "gallery"


def panels(image: dict[str, Any], pixels: Any, settings: IRNetSettings) -> list[tuple[str, Any]]:
    """Titles and RGB pictures of one image: attention, confident areas, displacement, instances, boundary, walk."""
    import numpy as np

    from pipelines.irnet.losses import IGNORE
    from stages.labels.drawing import faded, flow_colours, heatmap, overlay_categories, overlay_masks
    from stages.labels.maps import upsample_cells

    key, size = f"{layout.image_key(image)}.npz", (image["height"], image["width"])
    cams, relations = read_npz(CAMS / key), read_npz(RELATIONS / key)
    fields, walked = read_npz(FIELDS / key), read_npz(PROPAGATED / key)
    classes = cams["classes"]

    def large(maps: Any) -> Any:
        return upsample_cells(np.asarray(maps, np.float32), settings.grid, size)

    def strongest(maps: Any) -> Any:
        return large(maps).max(0) if len(maps) else np.zeros(size, np.float32)

    labels = relations["labels"].astype(np.int64)
    undecided = labels == IGNORE
    areas = np.where(undecided, -1, np.concatenate([[0], classes])[np.where(undecided, 0, labels)])
    walk = strongest(walked["semantic"])
    shown = np.unique(walked["pairs"][:, 1])
    rows = np.minimum(np.arange(size[0]) // settings.grid, walked["instances"].shape[0] - 1)
    columns = np.minimum(np.arange(size[1]) // settings.grid, walked["instances"].shape[1] - 1)
    instances = walked["instances"][rows[:, None], columns]
    return [
        ("attention (CAM)", heatmap(strongest(cams["cams"]), pixels)),
        ("confident areas (grey: undecided)", overlay_categories(faded(pixels), areas, ignore=-1)),
        ("displacement field", flow_colours(large(fields["displacement"]))),
        ("instances found in it", overlay_masks(pixels, [instances == index for index in shown],
                                                [int(index) + 1 for index in shown])),
        ("class boundary", heatmap(large(fields["boundary"][None])[0])),
        ("attention after the walk", heatmap(walk / max(float(walk.max()), 1e-6), pixels)),
    ]


def main(params: Path) -> None:
    """Draw the first images."""
    from stages.evaluation.settings import ReportSettings
    from stages.labels.images import read_rgb
    from stages.labels.panels import write_panels

    settings = load_settings(params, irnet=IRNetSettings, report=ReportSettings)
    images = read_json(layout.WEAK["train"])["images"][:settings.report.gallery_images]
    inputs = [CAMS, RELATIONS, FIELDS, PROPAGATED, layout.WEAK["train"]]
    with Work(__file__, inputs, [settings.report.gallery_images, settings.irnet.grid]) as work:
        write_panels(work.subfolder("gallery"),
                     ((image, panels(image, read_rgb(layout.IMAGES / image["file_name"]), settings.irnet))
                      for image in images))
        work.publish({"gallery": GALLERY})


if __name__ == "__main__":
    run_stage(main, __doc__)
