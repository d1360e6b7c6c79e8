"""Samples, and a whole training and inference of a toy problem."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from segmentation_scenes import settings, toy_data

from stages.cues.settings import AugmentSettings
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_npz
from stages.runtime.settings import RuntimeSettings
from stages.runtime.training import train_stage
from stages.runtime.walk import walk_stage
from stages.segmentation import training
from stages.segmentation.labels import IGNORE, index_table, read_indices, write_semantic_png
from stages.segmentation.samples import LabelledImages
from stages.segmentation.settings import SemanticInferenceSettings

CPU = RuntimeSettings(device="cpu", workers=1)
IDS = [4, 9]


def test_views_of_labels_move_with_pixels(tmp_path):
    images = toy_data(tmp_path, IDS)
    augment = AugmentSettings(crop=70, long_side=None, scale=(0.6, 1.6))
    samples = LabelledImages(images, tmp_path / "images", tmp_path / "labels", IDS, augment)
    assert len(samples) == 12
    seen, beyond, right, total = set(), 0, 0, 0
    for index in range(12):
        sample = samples.sample(index, np.random.default_rng(index))
        assert sample["image"].shape == (3, 70, 70) and sample["image"].dtype == torch.uint8
        assert sample["labels"].shape == (70, 70) and sample["labels"].dtype == torch.int16
        colours, labels = sample["image"].numpy(), sample["labels"].numpy()
        seen |= set(np.unique(labels).tolist())
        for label in (1, 2):
            # Even the blurred border of a rectangle has most of the colour of its class.
            strongest = colours.argmax(0)[labels == label]
            right, total = right + int((strongest == label % 3).sum()), total + len(strongest)
        outside = (colours == np.array([124, 116, 104])[:, None, None]).all(0)
        beyond += int(outside.sum())
        assert (labels[outside] == IGNORE).all()
    assert beyond > 1000
    assert right > 0.97 * total > 0
    assert seen == {IGNORE, 0, 1, 2}


def test_missing_and_wrong_label_maps(tmp_path):
    images = toy_data(tmp_path, IDS, count=3)
    arguments = (tmp_path / "images", tmp_path / "labels", IDS, AugmentSettings(crop=32))
    write_semantic_png(tmp_path / "labels" / "000000000002.png", np.zeros((5, 5), np.uint8))
    with pytest.raises(UserError, match="000000000002.png: .*64 x 48 pixels"):
        LabelledImages(images, *arguments).sample(1, np.random.default_rng(0))
    (tmp_path / "labels" / "000000000003.png").unlink()
    with pytest.raises(UserError, match="1 of 3 label maps are missing(.|\n)*image 3: .*000000000003.png"):
        LabelledImages(images, *arguments)
    with pytest.raises(UserError, match="no image to train"):
        LabelledImages([], *arguments)


def train(folder, monkeypatch, architecture: str, epochs: int = 25):
    """A toy training as a stage does it; gives the image entries. The working directory is ``folder``."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    images = toy_data(folder, IDS)
    chosen = settings(architecture, 4 if architecture == "pspnet" else 8, epochs=epochs, batch_size=6,
                      optimizer="adamw", schedule="one_cycle", learning_rate=0.01,
                      augment={"crop": 48, "long_side": None, "scale": (0.9, 1.1)})
    paths = (folder / "images", folder / "labels")
    train_stage(training.__file__, folder / "params.yaml", chosen, CPU, 3,
                lambda device: training.segmentation_training(chosen, images, *paths, IDS),
                inputs=[folder / "labels"], parameters=IDS, output=folder / "models" / "semantic")
    return images


@pytest.mark.parametrize("architecture", ["pspnet", "deeplabv3plus"])
def test_a_toy_problem_is_learnt(tmp_path, monkeypatch, architecture):
    folder = tmp_path / "run"
    images = train(folder, monkeypatch, architecture)
    model, ids = training.load_segmentation(folder / "models" / "semantic", torch.device("cpu"))
    assert ids == IDS and not model.training
    chosen = SemanticInferenceSettings(flip=True)
    walk_stage(training.__file__, folder / "params.yaml", CPU, {"": images}, key=layout.image_key,
               load=lambda image: read_rgb(folder / "images" / image["file_name"]),
               build=training.semantic_inference(folder / "models" / "semantic", chosen), inputs=[],
               parameters=[chosen], output=folder / "semantic", description="semantic maps")
    right = total = 0
    for image in images:
        found = read_npz(folder / "semantic" / f"{layout.image_key(image)}.npz")["semantic"]
        write_semantic_png(folder / "map.png", found)
        indices = read_indices(folder / "map.png", found.shape, index_table(IDS))
        truth = read_indices(folder / "labels" / f"{layout.image_key(image)}.png", found.shape, index_table(IDS))
        objects = truth > 0
        right, total = right + int((indices == truth)[objects].sum()), total + int(objects.sum())
    assert right / total > 0.85


def test_two_trainings_are_the_same(tmp_path, monkeypatch):
    written = []
    for name in ("first", "second"):
        train(tmp_path / name, monkeypatch, "deeplabv3plus", epochs=2)
        written.append({path.name: path.read_bytes() for path in (tmp_path / name / "models/semantic").glob("*.*")})
    assert written[0].keys() == {"weights.pt", "segmentation.json"}
    assert written[0] == written[1]


def test_tags_restrict_and_say_when_they_are_missing():
    assert training.tagged_classes({"id": 1, "tags": [9, 77]}, IDS) == [0, 2]
    assert training.tagged_classes({"id": 1, "tags": []}, IDS) == [0]
    with pytest.raises(UserError, match="image 8: has no tags"):
        training.tagged_classes({"id": 8}, IDS)


def test_inference_keeps_to_the_tags_of_training_images(tmp_path, monkeypatch):
    train(tmp_path / "run", monkeypatch, "pspnet", epochs=1)
    folder = tmp_path / "run/models/semantic"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    pixels[:, 20:40] = [0, 230, 0]
    infer = training.semantic_inference(folder, SemanticInferenceSettings(), ("train",))(torch.device("cpu"))
    tagged = infer("train", {"id": 1, "tags": [9]}, pixels)["semantic"]
    assert tagged.shape == (40, 52) and tagged.dtype == np.uint8
    assert set(np.unique(tagged)) <= {0, 9}
    free = infer("val", {"id": 1}, pixels)["semantic"]
    assert set(np.unique(free)) <= {0, 4, 9}
    sure = training.semantic_inference(folder, SemanticInferenceSettings(confidence=0.999))(torch.device("cpu"))
    assert (sure("", {"id": 1, "tags": [4, 9]}, pixels)["semantic"] == 255).mean() > 0.5


def test_optimizer_groups_and_what_is_written(tmp_path, monkeypatch):
    chosen = settings(backbone_factor=0.1, learning_rate=0.5, backbone={"freeze_batch_norm": True})
    image = {"id": 1, "file_name": "a.png", "height": 9, "width": 9}
    (tmp_path / "000000000001.png").write_bytes(b"")
    trained = training.segmentation_training(chosen, [image], tmp_path, tmp_path, IDS)
    model, (new, old) = trained.model, trained.groups
    assert (new["lr"], old["lr"]) == (0.5, pytest.approx(0.05))
    wanted = [value for value in model.parameters() if value.requires_grad]
    assert {id(value) for value in new["params"] + old["params"]} == {id(value) for value in wanted}
    assert len(wanted) < len(list(model.parameters()))

    training.describe(tmp_path, chosen, IDS)
    described = json.loads((tmp_path / "segmentation.json").read_text())
    assert described["category_ids"] == IDS and described["network"]["backbone"]["weights"] == "none"
    with pytest.raises(UserError, match="weights.pt: no such file"):
        training.load_segmentation(tmp_path, torch.device("cpu"))
    (tmp_path / "segmentation.json").write_text('{"network": {"architecture": "unet"}, "category_ids": [1]}')
    with pytest.raises(UserError, match="no description of a segmentation network"):
        training.load_segmentation(tmp_path, torch.device("cpu"))
