"""The training of a detector in the shape of a DVC stage, whichever labels it learns from."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from stages.detector.data import Labels
from stages.detector.engines import engine, named
from stages.detector.settings import DetectorSettings
from stages.runtime import distributed
from stages.runtime.files import write_json
from stages.runtime.settings import RuntimeSettings
from stages.runtime.work import Work


def training_stage(file: str, params: Path, labels: Labels, settings: DetectorSettings, *, inputs: Sequence[Path],
                   seed: int, runtime: RuntimeSettings, output: Path, section: str = "detector") -> None:
    """Train, in several processes if ``runtime`` says so, going on from a checkpoint.

    Args:
        file: ``__file__`` of the stage's module.
        params: settings file, for further processes.
        labels: masks (``data.read_labels``), or boxes alone (``data.read_boxes``): then the network has no mask head.
        settings: of the detector.
        inputs: files and folders that the labels come from, images included.
        seed: of the whole run.
        runtime: device, precision, processes.
        output: the folder to leave: model.pth (weights), settings.json (how they were made, whether there are masks,
            and the categories) and curves (DVCLive).
        section: where ``settings`` stand in params.yaml, for messages.

    Raises:
        UserError: the network cannot be made or trained with these settings.
    """
    with named(section):
        chosen = engine(settings.engine)
        distributed.launch(file, params, runtime.processes)
        with Work(file, [*inputs, *settings.weights_files()],
                  [seed, runtime.precision, settings.network(), labels.masks]) as work:
            chosen.train(labels, settings, seed, runtime, work.folder)
            if distributed.rank() == 0:
                # Copies: a run that is killed between here and the end finds its checkpoint's curves again.
                folder = work.subfolder(output.name)
                shutil.copy2(work.path("model.pth"), folder)
                shutil.copytree(work.path("curves"), folder / "curves", dirs_exist_ok=True)
                write_json(folder / "settings.json", {**settings.network(), "masks": labels.masks, "seed": seed,
                                                      "categories": labels.categories}, indent=2)
            work.publish({output.name: output})
