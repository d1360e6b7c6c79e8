"""A budget of annotation time: how many training images it affords, and which are drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from stages.prepare import prepare
from stages.prepare.budget import budget_of
from stages.prepare.settings import DatasetSettings
from stages.prepare.sources import Source, SourceImage, select
from stages.runtime.errors import UserError

TABLE_2 = 29280.0
WISE = {"seconds": {"points": 22.1}}


def dataset(**settings) -> DatasetSettings:
    return DatasetSettings(**{"kind": "coco", "root": "r", "budget_seconds": TABLE_2, **settings})


def source(train=1464, val=3) -> Source:
    images = {name: [SourceImage(number, f"{number}.jpg") for number in range(first, first + count)]
              for name, first, count in (("train", 1, train), ("val", 5000, val))}
    return Source([{"id": 1, "name": "cat"}], images, {name: Path("i.json") for name in images})


@pytest.mark.parametrize(("method", "kinds", "evaluate", "images"), [
    ("wise", ["tags"], WISE, 1464), ("wise", ["points"], WISE, 1325), ("wise", ["tags", "points"], WISE, 1325),
    ("masks", ["tags"], WISE, 122), ("wise", ["points"], {}, 1257), ("irnet", ["tags"], {"supervision": "masks"}, 122),
    ("exits", ["extreme_points"], {}, 769)])
def test_table_2(method, kinds, evaluate, images):
    found = budget_of(dataset(), method, {"kinds": kinds}, evaluate)
    assert found.images == images
    assert found.sentence(1464).startswith(f"29280 s of annotation are {images} images with ")


def test_a_mix_costs_in_between():
    found = budget_of(dataset(), "wise", {"kinds": ["tags", "masks"], "masked_images": 0.5}, {})
    assert found.images == round(TABLE_2 / (0.5 * 20.0 + 0.5 * 239.7))
    assert budget_of(dataset(budget_seconds=None), "wise", {}, {}) is None


def test_budgets_that_buy_nothing_or_everything():
    with pytest.raises(UserError, match=r"dataset.budget_seconds: 9 s are less than one image with masks, which takes "
                                        r"239.7 s \(evaluate.seconds\); give more"):
        budget_of(dataset(budget_seconds=9), "masks", {}, {})
    with pytest.raises(UserError, match=r"an image costs nothing \(evaluate.seconds.tags: 0\)"):
        budget_of(dataset(), "irnet", {"kinds": ["tags"]}, {"seconds": {"tags": 0}})


def ids(found, part="train"):
    return [image.id for image in found.parts[part]]


def test_drawn_without_replacement_from_all_and_val_is_left_alone():
    found = select(source(), dataset(), 1325)
    assert len(set(ids(found))) == 1325 and ids(found) == sorted(ids(found)) and set(ids(found)) <= {*range(1, 1465)}
    assert ids(found, "val") == [5000, 5001, 5002]
    assert ids(select(source(), dataset(), 1325)) == ids(found)
    assert ids(select(source(), dataset(seed=1), 1325)) != ids(found)
    assert set(ids(select(source(), dataset(), 122))) < set(ids(found)), "a smaller budget is a part of a larger one"
    assert ids(select(source(20), dataset(), 122)) == [*range(1, 21)]


def test_every_image_is_as_likely():
    counts = Counter(number for seed in range(600) for number in ids(select(source(10), dataset(seed=seed), 3)))
    assert set(counts) == {*range(1, 11)}
    assert max(abs(count / 600 - 0.3) for count in counts.values()) < 0.08  # four standard deviations


def test_together_with_split_and_limit():
    """The split comes first, so that val is that of a run without a budget; the limit takes the first of the drawn."""
    whole = select(source(), dataset(split=64, budget_seconds=None))
    cut = select(source(), dataset(split=64), 500)
    assert ids(cut, "val") == ids(whole, "val") and set(ids(cut)) < set(ids(whole)) and len(ids(cut)) == 500
    limited = select(source(), dataset(split=64, limit=7), 500)
    assert ids(limited) == ids(cut)[:7] and len(ids(limited, "val")) == 7
    assert len(ids(select(source(), dataset(limit=9), 5))) == 5


@pytest.mark.parametrize("value", [0, -3.0, "much", True])
def test_what_is_no_budget(value):
    with pytest.raises(ValueError, match="budget_seconds"):
        dataset(budget_seconds=value)


def test_the_stage(coco_root, desk, capfd):
    """Two of three images with points, and the report says so."""

    def run(**settings):
        params = {"method": "wise", "annotations": {"kinds": ["points"]}, "evaluate": WISE, "runtime": {"workers": 1},
                  "dataset": {"kind": "coco", "root": str(coco_root.root), **settings}}
        Path("params.yaml").write_text(yaml.safe_dump(params))
        prepare.main(Path("params.yaml"))
        return [image["id"] for image in desk.read("data/dataset/train_truth.json")["images"]]

    assert run() == [11, 12, 13]
    drawn = run(budget_seconds=44.2)
    assert len(drawn) == 2 and set(drawn) < {11, 12, 13}
    assert {path.name for path in desk.images.iterdir()} == {f"{number}.png" for number in (*drawn, 21, 22)}
    assert ("prepare: 44.2 s of annotation are 2 images with points (22.1 s each): drawn from the 3"
            in capfd.readouterr().err)
    assert run(budget_seconds=1000.0) == [11, 12, 13]
    assert "are 45 images with points (22.1 s each): there are only 3, all are taken" in capfd.readouterr().err
    assert run(budget_seconds=44.2, limit=1) == drawn[:1]
    with pytest.raises(UserError, match="11 s are less than one image"):
        run(budget_seconds=11)


def test_classes_that_are_not_drawn_are_accepted(coco_root, desk, capfd):
    coco_root.train["annotations"] = [item for item in coco_root.train["annotations"]
                                      if item["category_id"] == 9 or item["image_id"] == 13]
    coco_root.save()
    settings = DatasetSettings(kind="coco", root=str(coco_root.root), budget_seconds=20, seed=1)
    for seed in range(9):
        found = budget_of(settings, "irnet", {}, {})
        assert found.images == 1
        prepare.prepare(settings.model_copy(update={"seed": seed}), prepare.RuntimeSettings(workers=1), found)
    assert "1 of 2 classes have no training image: cat" in capfd.readouterr().err
