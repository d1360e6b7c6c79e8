"""Train Mask R-CNN on the pseudo-labels of the method that params.yaml names.

Reads data/<method>/pseudo_labels.json and data/dataset/images; leaves models/<method>/detector: model.pth (weights),
settings.json (how they were made, and the categories) and curves (DVCLive). An interrupted run goes on from its
checkpoint. Several processes (runtime.processes) train together.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from stages.detector.data import read_labels
from stages.detector.engines import engine
from stages.detector.settings import DetectorSettings
from stages.runtime import distributed, layout
from stages.runtime.files import write_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work


def main(params: Path) -> None:
    settings = load_settings(params, method=str, seed=int, runtime=RuntimeSettings, detector=DetectorSettings)
    detector: DetectorSettings = settings.detector
    chosen = engine(detector.engine)
    labels_path = layout.pseudo_labels(settings.method)
    labels = read_labels(labels_path, layout.IMAGES, detector.train)
    if detector.engine == "torchvision":  # Detectron2 starts its own processes
        distributed.launch(__file__, params, settings.runtime.processes)
    inputs = [labels_path, layout.IMAGES, *detector.weights_files()]
    with Work(__file__, inputs, [settings.seed, settings.runtime.precision, detector.network()]) as work:
        chosen.train(labels, detector, settings.seed, settings.runtime, work.folder)
        if distributed.rank() == 0:
            # Copies: a run that is killed between here and the end finds its checkpoint's curves again.
            folder = work.subfolder("detector")
            shutil.copy2(work.path("model.pth"), folder)
            shutil.copytree(work.path("curves"), folder / "curves", dirs_exist_ok=True)
            write_json(folder / "settings.json",
                       {**detector.network(), "seed": settings.seed, "categories": labels.categories}, indent=2)
        work.publish({"detector": layout.method_models(settings.method) / "detector"})


if __name__ == "__main__":
    run_stage(main, __doc__)
