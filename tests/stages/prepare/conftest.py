"""A small COCO data set to spoil, and a way to run the two stages in a folder of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.prepare.annotate import annotate
from stages.prepare.prepare import prepare
from stages.prepare.settings import AnnotationSettings, DatasetSettings
from stages.runtime.settings import RuntimeSettings

RUNTIME = RuntimeSettings(workers=1)


class MiniCoco:
    """``root/images`` with 12 x 10 px photographs and the two JSON files; edit ``train`` and ``val``, then ``save``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.categories = [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}]
        self.train = self._part([11, 12, 13])
        self.val = self._part([21, 22])
        self.save()

    def _part(self, ids: list[int]) -> dict[str, Any]:
        images, annotations = [], []
        for index, number in enumerate(ids):
            name = f"{number}.png"
            self.write(name, np.random.default_rng(number).integers(0, 255, (10, 12, 3), np.uint8))
            images.append({"id": number, "file_name": name, "width": 12, "height": 10})
            x = 2 + index
            annotations += [
                {"id": 10 * number, "image_id": number, "category_id": 4, "iscrowd": 0, "bbox": [x, 1, 4, 3],
                 "area": 12, "segmentation": [[x, 1, x + 4, 1, x + 4, 4, x, 4]]},
                {"id": 10 * number + 1, "image_id": number, "category_id": 9, "iscrowd": 0, "bbox": [0, 6, 5, 4],
                 "area": 20, "segmentation": [[0, 6, 5, 6, 5, 10, 0, 10]]}]
        return {"images": images, "annotations": annotations, "categories": self.categories}

    def write(self, name: str, pixels: np.ndarray, **options: Any) -> Path:
        path = self.root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
        return path

    def save(self) -> None:
        for part in ("train", "val"):
            (self.root / f"instances_{part}.json").write_text(json.dumps(getattr(self, part)))

    def drop(self, *keys: str) -> None:
        """Take keys away from all annotations."""
        for part in (self.train, self.val):
            for annotation in part["annotations"]:
                for key in keys:
                    annotation.pop(key, None)


class Desk:
    """A working directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self, **settings: Any) -> dict[str, Any]:
        """Run ``prepare`` with these settings; the truth of train and val."""
        prepare(DatasetSettings.model_validate(settings), RUNTIME)
        return {part: self.read(f"data/dataset/{part}_truth.json") for part in ("train", "val")}

    def annotate(self, **settings: Any) -> dict[str, Any]:
        """Run ``annotate``; the weak labels of train and val."""
        annotate(AnnotationSettings.model_validate(settings), RUNTIME)
        return {part: self.read(f"data/annotations/{part}_weak.json") for part in ("train", "val")}

    def read(self, path: str) -> Any:
        return json.loads((self.folder / path).read_text())

    @property
    def images(self) -> Path:
        return self.folder / "data/dataset/images"


@pytest.fixture
def coco_root(tmp_path) -> MiniCoco:
    return MiniCoco(tmp_path / "photos")


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Desk:
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Desk(folder)
