"""Find instances in the validation images with the trained Mask R-CNN.

Reads models/<method>/detector and the list of validation images; writes data/<method>/predictions.json, COCO results
sorted by image and score. An interrupted run goes on with the first image that is not done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.detector.data import coco_results
from stages.detector.engines import engine
from stages.detector.settings import DetectorSettings
from stages.labels import coco
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from stages.runtime.progress import progress
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work


def main(params: Path) -> None:
    settings = load_settings(params, method=str, seed=int, runtime=RuntimeSettings, detector=DetectorSettings)
    model = layout.method_models(settings.method) / "detector"
    trained, categories = read_model(model)
    images = sorted(coco.read_coco(layout.WEAK["val"])["images"], key=lambda image: image["id"])
    predict = settings.detector.predict
    inputs = [layout.WEAK["val"], model / "model.pth", model / "settings.json"]
    with Work(__file__, inputs, [predict]) as work:
        done = work.subfolder("images")
        pending = [image for image in images if not (done / f"{layout.image_key(image)}.json").exists()]
        if pending:
            predictor = engine(trained.engine).load(model / "model.pth", trained, len(categories), predict,
                                                    settings.runtime)
            for image in progress(pending, len(images), "finding instances", len(images) - len(pending)):
                detections = predictor(read_rgb(layout.IMAGES / image["file_name"]))
                write_json(done / f"{layout.image_key(image)}.json", coco_results(image["id"], detections, categories))
        results = [result for image in images for result in read_json(done / f"{layout.image_key(image)}.json")]
        write_json(work.path("predictions.json"), results)
        work.publish({"predictions.json": layout.predictions(settings.method)})


def read_model(folder: Path) -> tuple[DetectorSettings, list[dict[str, Any]]]:
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
