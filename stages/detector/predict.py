"""Find instances in the validation images with the trained Mask R-CNN.

Reads models/<method>/detector and the list of validation images; writes data/<method>/predictions.json, COCO results
sorted by image and score. An interrupted run goes on with the first image that is not done.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.detector.data import coco_results
from stages.detector.engines import engine
from stages.detector.settings import DetectorSettings
from stages.labels import coco
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage


def main(params: Path) -> None:
    """Every image on its own; then one file."""
    from stages.runtime.walk import walk_stage

    settings = load_settings(params, method=str, runtime=RuntimeSettings, detector=DetectorSettings)
    model = layout.method_models(settings.method) / "detector"
    trained, categories = read_model(model)
    images = sorted(coco.read_coco(layout.WEAK["val"])["images"], key=lambda image: image["id"])
    predict = settings.detector.predict

    def build(device: object) -> Callable[[str, coco.Entry, np.ndarray], list[coco.Entry]]:
        predictor = engine(trained.engine).load(model / "model.pth", trained, len(categories), predict,
                                                settings.runtime)
        return lambda part, image, pixels: coco_results(image["id"], predictor(pixels), categories)

    def collect(folder: Path) -> dict[str, Path]:
        results = [result for image in images for result in read_json(folder / f"{layout.image_key(image)}.json")]
        write_json(folder.parent / "predictions.json", results)
        return {"predictions.json": layout.predictions(settings.method)}

    walk_stage(__file__, params, settings.runtime, {"": images}, key=layout.image_key,
               load=lambda image: read_rgb(layout.IMAGES / image["file_name"]), build=build,
               inputs=[layout.WEAK["val"], layout.IMAGES, model / "model.pth", model / "settings.json"],
               parameters=predict, output=None, description="finding instances", suffix=".json", finish=collect)


def read_model(folder: Path) -> tuple[DetectorSettings, list[coco.Entry]]:
    """The settings that a detector was trained with, and its categories.

    Raises:
        UserError: the folder holds no model, or one of another version.
    """
    path = folder / "settings.json"
    content = read_json(path)
    try:
        categories = content.pop("categories")
        content.pop("seed")
        return DetectorSettings.model_validate(content), categories
    except (KeyError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: not the settings of a detector of this version ({str(error).splitlines()[0]}); "
                        f"train again: dvc repro train") from None


if __name__ == "__main__":
    run_stage(main, __doc__)
