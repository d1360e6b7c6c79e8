"""Find instances in the displacement field and let the attention walk within the class boundaries (sections 5.1, 5.2).

Reads data/irnet/cams and data/irnet/fields; writes data/irnet/propagated, one .npz per image: `classes` (K,) category
ids; `semantic` (K, h, w) float16, each class's attention after the walk (the reduced version of section 6.2);
`instances` (h, w) int32, the class-agnostic instance map; `pairs` (P, 2), index into `classes` and instance;
`scores` (P, h, w) float16, the instance-wise attention after the walk (eq. 11 to 13).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pipelines.irnet.infer_cams import CAMS
from pipelines.irnet.infer_fields import FIELDS
from pipelines.irnet.settings import IRNetSettings
from stages.runtime import layout
from stages.runtime.files import read_json, read_npz, write_npz
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

PROPAGATED = layout.method_data("irnet") / "propagated"


def _one(image: dict[str, Any], folder: Path, settings: IRNetSettings) -> None:
    import numpy as np

    from pipelines.irnet.instances import instance_cams, instance_map
    from stages.propagation.random_walk import random_walk

    chosen = settings.propagation
    key = f"{layout.image_key(image)}.npz"
    stored, fields = read_npz(CAMS / key), read_npz(FIELDS / key)
    cams = stored["cams"].astype(np.float32)
    boundary = fields["boundary"].astype(np.float32)
    instances = instance_map(fields["displacement"], chosen.refinements, chosen.centroid)
    # An instance no cell of which was a confident seed would only ever be a ghost of its neighbour's attention.
    maps, pairs = instance_cams(cams, instances, chosen.seed)
    walked = random_walk(np.concatenate([cams, maps]), boundary, radius=chosen.radius, beta=chosen.beta,
                         steps=chosen.steps)
    walked = np.maximum(walked, 0).astype(np.float16)
    write_npz(folder / key, classes=stored["classes"], semantic=walked[:len(cams)], instances=instances, pairs=pairs,
              scores=walked[len(cams):])


def main(params: Path) -> None:
    """Every image on its own, on all workers."""
    settings = load_settings(params, runtime=RuntimeSettings, irnet=IRNetSettings)
    images = read_json(layout.WEAK["train"])["images"]
    with Work(__file__, [CAMS, FIELDS], settings.irnet.propagation) as work:
        folder = work.subfolder("propagated")
        missing = [image for image in images if not (folder / f"{layout.image_key(image)}.npz").exists()]
        parallel_map(partial(_one, folder=folder, settings=settings.irnet), missing, settings.runtime, "random walk")
        work.publish({"propagated": PROPAGATED})


if __name__ == "__main__":
    run_stage(main, __doc__)
