"""Each paper preset reads its miniature as it would read the real data set."""

import json
from pathlib import Path

import pytest

from pipelines.rehearsal import miniatures
from pipelines.settings import load_params
from stages.labels import rle
from stages.prepare import voc
from stages.prepare.annotate import annotate
from stages.prepare.prepare import prepare
from stages.prepare.settings import DatasetSettings
from stages.runtime.errors import UserError
from stages.runtime.settings import RuntimeSettings

PRESETS = Path(__file__).resolve().parents[3] / "pipelines/presets"
SMALL = {kind: (90, 120) for kind in miniatures.SIZES}


def _prepared(preset, images, monkeypatch, folder):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(miniatures, "SIZES", SMALL)
    settings = load_params(PRESETS / f"{preset}.yaml")
    dataset = settings.dataset.model_copy(update={"root": "raw/set", "limit": images})
    miniatures.write(dataset, Path("raw/set"), images)
    prepare(dataset, RuntimeSettings(workers=1))
    annotate(settings.annotations, RuntimeSettings(workers=1))
    return {part: json.loads(Path(f"data/dataset/{part}_truth.json").read_text()) for part in ("train", "val")}


@pytest.mark.parametrize("preset, classes", [("voc2012", 20), ("coco2017", 80), ("coco2014", 80), ("lvis", 1203),
                                             ("kitti", 2)])
def test_a_paper_preset_reads_its_miniature(preset, classes, monkeypatch, tmp_path):
    truths = _prepared(preset, 4, monkeypatch, tmp_path)
    assert [len(truths[part]["images"]) for part in ("train", "val")] == [4, miniatures.VAL_IMAGES]
    assert len(truths["train"]["categories"]) == classes
    assert not {image["id"] for image in truths["train"]["images"]} & {image["id"] for image in truths["val"]["images"]}
    rows = truths["val"]["annotations"]
    assert len(rows) >= 2 and all(rle.area(row["segmentation"]) > 0 for row in rows)


def test_cityscapes_in_small(monkeypatch, tmp_path):
    truths = _prepared("cityscapes", 3, monkeypatch, tmp_path)
    assert len(truths["train"]["images"]) == 3
    assert [image.get("coarse", False) for image in truths["train"]["images"]].count(True) == 1
    assert {category["isthing"] for category in truths["val"]["categories"]} == {0, 1}


def test_masks_of_voc_are_those_that_were_drawn(monkeypatch, tmp_path):
    """Of the palette PNGs without the outlines, which are void; of SBD's files whole."""
    truth = _prepared("voc2012", 4, monkeypatch, tmp_path)["train"]
    masks = {}
    for row in truth["annotations"]:
        masks.setdefault(row["image_id"], []).append((row["category_id"], rle.decode(row["segmentation"])))
    for place, image in enumerate(sorted(truth["images"], key=lambda image: image["file_name"])):
        # Names count from 1; odd ones are VOC's own, and come before SBD's.
        number = [0, 2, 1, 3][place]
        drawn = miniatures._scene(number, "voc").objects
        own = image["file_name"].startswith("2007")
        for category, mask in masks[image["id"]]:
            names = [index % len(voc.CLASSES) + 1 for index, _ in drawn]
            shares = [(mask & other).sum() / mask.sum() for _, other in drawn]
            best = max(range(len(drawn)), key=lambda index: shares[index])
            assert shares[best] == 1 and names[best] == category
            assert mask.sum() < drawn[best][1].sum() if own else mask.sum() == drawn[best][1].sum()


def test_coco_has_its_own_ids_and_a_crowd(monkeypatch, tmp_path):
    truth = _prepared("coco2017", 3, monkeypatch, tmp_path)
    ids = [category["id"] for category in truth["train"]["categories"]]
    assert ids[0] == 1 and ids[-1] == 90 and 12 not in ids  # as published: ten numbers of the ninety are not used
    assert sum(row["iscrowd"] for part in truth.values() for row in part["annotations"]) >= 1


def test_a_kind_without_a_miniature():
    settings = DatasetSettings(kind="folder", split=0.2, root="x")
    with pytest.raises(UserError, match=r"dataset.kind: folder has no miniature .*ROOT="):
        miniatures.write(settings, Path("nowhere"), 3)
