"""Let L-Net locate the objects of every image, and group its pixels around points by E-Net's embeddings (section 3.3).

Reads data/annotations, data/dataset/images, data/wise/points, data/proposals and models/wise/wise; writes
data/wise/maps/{train,val}/, one .npz per image: of L-Net ``lnet_yx`` (L, 2), ``lnet_categories`` (L,), ``lnet_scores``
(L,) and ``blobs`` (H, W) uint16, 0 or 1 + the number of the point; around the points of data/wise/points
``groups_given`` (H, W) int16, -1 or the number of the point, and ``likeness_given`` (P,), the mean similarity of each
group to its point; on val ``groups_lnet`` and ``likeness_lnet`` around L-Net's; for the gallery ``colours`` (h, w, 3)
uint8 and ``similarity`` (h, w) uint8 of the first point.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.wise.find_points import POINTS
from pipelines.wise.settings import WiseSettings
from pipelines.wise.train_wise import WISE
from stages.proposals.propose import PROPOSALS
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

MAPS = layout.method_data("wise") / "maps"


def main(params: Path) -> None:
    """Image by image on the device."""
    settings = load_settings(params, runtime=RuntimeSettings, wise=WiseSettings)
    from pipelines.wise.prediction import infer_all

    infer_all(__file__, params, WISE / "weights.pt", POINTS, PROPOSALS, settings.wise, settings.runtime, MAPS)


if __name__ == "__main__":
    run_stage(main, __doc__)
