"""One point per object: the annotated ones, or peaks of a classifier of tags (table 1, "PRM").

Reads data/annotations, data/dataset/images and models/wise/peaks; writes data/wise/points/{train,val}/, one JSON per
image: ``points`` [x, y], ``category_ids``, ``weak_ids`` (-1 for peaks) and ``scores`` (1, or a peak's response).
"""

from __future__ import annotations

from pathlib import Path

from pipelines.wise.given import annotated
from pipelines.wise.settings import WiseSettings
from pipelines.wise.train_peaks import PEAKS
from stages.cues.objects import read_images
from stages.runtime import layout
from stages.runtime.files import write_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

POINTS = layout.method_data("wise") / "points"


def main(params: Path) -> None:
    """Image by image."""
    settings = load_settings(params, runtime=RuntimeSettings, wise=WiseSettings)
    if settings.wise.cues.source == "peaks":
        from pipelines.wise.peaks import find_peaks

        find_peaks(__file__, params, PEAKS / "weights.pt", settings.wise, settings.runtime, POINTS)
        return
    with Work(__file__, [*layout.WEAK.values()], "points") as work:
        for split, path in layout.WEAK.items():
            folder = work.subfolder(f"points/{split}")
            for image in read_images(path, ("point",))[0]:
                write_json(folder / f"{image.key}.json", annotated(image.objects))
        work.publish({"points": POINTS})


if __name__ == "__main__":
    run_stage(main, __doc__)
