"""A finished run in miniature: what the stages before score, evaluate and report leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from stages.labels import rle
from stages.labels.coco import write_instances
from stages.labels.panoptic import png_folder, write_panoptic
from stages.labels.segments import write_segments
from stages.runtime import layout
from stages.runtime.files import read_json, write_json
from tests.stages.evaluation.scenes import annotation, scene, square

PARAMS: dict[str, Any] = {
    "method": "irnet", "seed": 0, "runtime": {"workers": 1}, "dataset": {"kind": "shapes"},
    "annotations": {"kinds": ["tags", "points"]},
    "detector": {"engine": "torchvision", "torchvision": {"backbone": "resnet18"}, "detectron2": {}},
    "irnet": {"cams": {"scales": [0.5, 1.0]}}, "score": {}, "evaluate": {}, "report": {},
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with params.yaml, data set, weak labels, pseudo-labels, predictions, gallery and curves."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    for number, split in enumerate(("train", "val")):
        images, categories, truth, detections = scene(number, images=6)
        categories = [*categories, {"id": 40, "name": "sky", "isthing": 0}]
        truth.append(annotation(len(truth) + 1, images[0]["id"], 40, square(60, 80, 0, 0, 80, 4)))
        for image in images:
            image["file_name"] = f"{split}_{image['id']}.jpg"
            write_picture(layout.IMAGES / image["file_name"], image["id"])
        write_json(layout.TRUTH[split], {"info": {"truth": "masks"}, "images": images, "categories": categories,
                                         "annotations": truth})
        weak = [{"id": item["id"], "image_id": item["image_id"], "category_id": item["category_id"], "iscrowd": 0,
                 "bbox": item["bbox"], "point": [item["bbox"][0], item["bbox"][1]]} for item in truth[:-1]]
        write_json(layout.WEAK[split], {"images": [image | {"tags": [2, 40]} for image in images],
                                        "categories": categories, "annotations": weak})
        if split == "train":
            write_instances(layout.pseudo_labels("irnet"), images, categories, detections)
            gallery(images)
        else:
            write_json(layout.predictions("irnet"), [
                {key: item[key] for key in ("image_id", "category_id", "segmentation", "bbox", "score")}
                for item in detections])
    return tmp_path


def write_params(folder: Path, **changes: Any) -> Path:
    """Write params.yaml with some sections changed."""
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(PARAMS | changes))
    return path


def write_perfect_output(method: str, split: str, name: str | None = None) -> None:
    """The truth of a split as the method's panoptic output, or as another file of its folder."""
    truth = read_json(layout.TRUTH[split])
    path = layout.panoptic(method, split) if name is None else layout.method_data(method) / name
    annotations = []
    for image in truth["images"]:
        segments, rows = np.zeros((image["height"], image["width"]), int), []
        for item in truth["annotations"]:
            if item["image_id"] == image["id"] and not item["iscrowd"]:
                segments[rle.decode(item["segmentation"]) & (segments == 0)] = item["id"]
                rows.append({"id": item["id"], "category_id": item["category_id"], "score": 1.0})
        annotations.append(write_segments(png_folder(path), image, segments, rows))
    write_panoptic(path, truth["images"], truth["categories"], annotations)


def write_picture(path: Path, seed: int) -> None:
    """A noisy 80 x 60 picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)


def gallery(images: list[dict]) -> None:
    """Panels of the method for the first two images, and curves of one training."""
    folder = layout.method_data("irnet") / "gallery"
    panels = []
    for image in images[:2]:
        for title in ("CAM", "Class boundary"):
            name = f"{layout.image_key(image)}_{title.split()[0].lower()}.png"
            write_picture(folder / name, 1)
            panels.append({"image_id": image["id"], "title": title, "picture": name})
    write_json(folder / "panels.json", panels)
    curves = layout.method_models("irnet") / "classifier/curves/plots/metrics"
    curves.mkdir(parents=True)
    rows = [f"{step}\t{2.0 / (1 + step / 50)}" for step in range(9, 200, 10)]
    (curves / "loss.tsv").write_text("\n".join(["step\tloss", *rows]) + "\n")
