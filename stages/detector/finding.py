"""Looking at images with a trained detector in the shape of a DVC stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.detector.data import coco_results
from stages.detector.engines import engine
from stages.detector.settings import DetectorPredictSettings, DetectorSettings
from stages.labels.coco import Entry
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from stages.runtime.settings import RuntimeSettings
from stages.runtime.walk import walk_stage


class Trained(NamedTuple):
    """The settings that a detector was trained with, its categories, and whether it draws masks."""

    settings: DetectorSettings
    categories: list[Entry]
    masks: bool


def read_model(folder: Path) -> Trained:
    """What ``learning.training_stage`` has left in ``folder``, but for the weights.

    Raises:
        UserError: the folder holds no model, or one of another version.
    """
    path = folder / "settings.json"
    content = read_json(path)
    try:
        categories, masks = content.pop("categories"), content.pop("masks", True)
        content.pop("seed")
        return Trained(DetectorSettings.model_validate(content), categories, bool(masks))
    except (KeyError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: not the settings of a detector of this version ({str(error).splitlines()[0]}); "
                        f"train again: dvc repro train") from None


def detection_stage(file: str, params: Path, model: Path, images: Mapping[str, Sequence[Entry]],
                    outputs: Mapping[str, Path], *, predict: DetectorPredictSettings, inputs: Sequence[Path],
                    runtime: RuntimeSettings) -> None:
    """Find the objects of images; an interrupted run goes on with the first image that is not done.

    Args:
        file: ``__file__`` of the stage's module.
        params: settings file, for further processes.
        model: folder of the trained detector.
        images: name of a list -> COCO images below ``layout.IMAGES``, in the order of the results.
        outputs: name of the list -> the file to leave: COCO results (``image_id``, ``category_id``, ``bbox``,
            ``score``, and ``segmentation`` where the detector draws masks), sorted by image and score.
        predict: what becomes of the network's output.
        inputs: files that the lists come from.
        runtime: device and processes.
    """
    trained = read_model(model)

    def build(device: object) -> Callable[[str, Entry, np.ndarray], list[Entry]]:
        predictor = engine(trained.settings.engine).load(model / "model.pth", trained.settings, len(trained.categories),
                                                         predict, runtime, trained.masks)
        return lambda name, image, pixels: coco_results(image["id"], predictor(pixels), trained.categories)

    def collect(folder: Path) -> dict[str, str | Path]:
        for name, entries in images.items():
            write_json(folder.parent / outputs[name].name, [
                result for image in entries
                for result in read_json(folder / name / f"{layout.image_key(image)}.json")])
        return {path.name: path for path in outputs.values()}

    walk_stage(file, params, runtime, images, key=layout.image_key,
               load=lambda image: read_rgb(layout.IMAGES / image["file_name"]), build=build,
               inputs=[*inputs, layout.IMAGES, model / "model.pth", model / "settings.json"],
               parameters=predict, output=None, description="finding instances", suffix=".json", finish=collect)
