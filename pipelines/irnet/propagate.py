"""Find instances in the displacement field and let the attention walk within the class boundaries (sections 5.1, 5.2).

Reads data/annotations/train_weak.json (images), data/irnet/cams and data/irnet/fields; writes data/irnet/propagated,
one .npz per image: `classes` (K,) category ids; `semantic` (K, h, w) float16, each class's attention after the walk
(the reduced version of section 6.2); `instances` (h, w) int32, the class-agnostic instance map; `pairs` (P, 2), index
into `classes` and instance; `scores` (P, h, w) float16, the instance-wise attention after the walk (eq. 11 to 13).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from pipelines.irnet.infer_cams import CAMS
from pipelines.irnet.infer_fields import FIELDS
from pipelines.irnet.settings import IRNetSettings, PropagationSettings
from stages.labels.coco import Entry, read_coco
from stages.runtime import layout
from stages.runtime.files import read_npz
from stages.runtime.parallel import map_images
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

PROPAGATED = layout.method_data("irnet") / "propagated"


def propagated(image: Entry, settings: PropagationSettings) -> dict[str, np.ndarray]:
    """The arrays of one image."""
    from pipelines.irnet.spreading import spread  # loads torch: in the worker

    key = f"{layout.image_key(image)}.npz"
    stored, fields = read_npz(CAMS / key), read_npz(FIELDS / key)
    return {"classes": stored["classes"],
            **spread(stored["cams"], fields["displacement"], fields["boundary"], settings)}


def main(params: Path) -> None:
    """Every image on its own, on all workers."""
    settings = load_settings(params, runtime=RuntimeSettings, irnet=IRNetSettings)
    chosen = settings.irnet.propagation
    with Work(__file__, [CAMS, FIELDS, layout.WEAK["train"]], chosen) as work:
        map_images(partial(propagated, settings=chosen), read_coco(layout.WEAK["train"])["images"],
                   work.subfolder("propagated"), settings.runtime, "random walk", "train")
        work.publish({"propagated": PROPAGATED})


if __name__ == "__main__":
    run_stage(main, __doc__)
