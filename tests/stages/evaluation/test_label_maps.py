"""Label maps of cues and rounds against the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.evaluation.inputs import Truth
from stages.evaluation.label_maps import COLUMNS, measure_maps, round_rows
from stages.evaluation.score import main
from stages.labels import rle
from stages.labels.map_list import LabelMap, write_map_list
from stages.labels.panoptic import png_folder, write_panoptic
from stages.labels.segments import write_segments
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings
from stages.segmentation.labels import write_semantic_png
from tests.stages.evaluation.scenes import annotation
from tests.stages.evaluation.test_panoptic_output import CATEGORIES, grid

ONE = RuntimeSettings(workers=1)
TRUE = grid("7777 7117 9119 2299")  # sky, a cat, sea, a crowd of dogs
SCENE = [(1, 0), (7, 0), (9, 0), (2, 1)]


def truth_of(true: np.ndarray, classes, **image) -> Truth:
    rows = [annotation(number, 5, category, true == category, iscrowd=crowd)
            for number, (category, crowd) in enumerate(classes, start=1)]
    height, width = true.shape
    images = [{"id": 5, "file_name": "5.jpg", "height": height, "width": width, **image}]
    return Truth(Path("truth.json"), images, CATEGORIES, rows, "")


def keep(folder, truth: Truth, **maps: np.ndarray):
    """maps.json and its folders, one map per image."""
    for name, semantic in maps.items():
        write_semantic_png(folder / name / "000000000005.png", semantic.astype(np.uint8))
    write_map_list(folder / "maps.json", [LabelMap(name, name) for name in maps])
    return measure_maps(folder / "maps.json", truth, ONE)


def test_by_hand(tmp_path):
    cues = grid("7777 1177 ...1 2222")
    cues[cues == 0] = 255
    found = keep(tmp_path, truth_of(TRUE, SCENE), cues=cues)["cues"]
    # Cat: three labelled, one right, four true. Dogs are a crowd: no true pixel counts, nor does what lies on them;
    # beside them "dog" is on two pixels of sea. Sky: 6 labelled, 5 right, 6 true. Sea: none labelled.
    assert found["things"] == pytest.approx({"precision": 100 / 3, "recall": 25.0, "IoU": 100 / 6}, abs=1e-3)
    assert found["stuff"] == pytest.approx({"precision": 500 / 6, "recall": (500 / 6 + 0) / 2,
                                            "IoU": (500 / 7 + 0) / 2}, abs=1e-3)
    assert found["all"]["IoU"] == pytest.approx((100 / 6 + 500 / 7 + 0) / 3, abs=1e-3)
    assert found["decided_pixels"] == pytest.approx(100 * 11 / 14, abs=1e-3)


def test_the_truth_is_perfect_and_nothing_is_nothing(tmp_path):
    found = keep(tmp_path, truth_of(TRUE, SCENE), perfect=TRUE, nothing=np.full_like(TRUE, 255))
    perfect = {"precision": 100.0, "recall": 100.0, "IoU": 100.0}
    assert found["perfect"] == {"things": perfect, "stuff": perfect, "all": perfect, "decided_pixels": 100.0}
    empty = {"recall": 0.0, "IoU": 0.0}
    assert found["nothing"] == {"things": empty, "stuff": empty, "all": empty, "decided_pixels": 0.0}


def test_void_does_not_count(tmp_path):
    """Neither what the image calls void, nor, where stuff is labelled, what has no label."""
    true = grid("7700 1100")
    wrong_there = grid("7711 1117")
    found = keep(tmp_path, truth_of(true, [(1, 0), (7, 0)]), cues=wrong_there)["cues"]
    assert found["all"] == {"precision": 100.0, "recall": 100.0, "IoU": 100.0}
    things = truth_of(grid("0000 1100"), [(1, 0)], void=rle.encode(grid("0011 0000")))
    found = keep(tmp_path, things, cues=grid("0011 1110"))["cues"]
    assert found["things"] == pytest.approx({"precision": 200 / 3, "recall": 100.0, "IoU": 200 / 3}, abs=1e-3)
    assert found["all"]["IoU"] == pytest.approx((200 / 3 + 75) / 2, abs=1e-3), "with background"
    assert "stuff" not in found


def test_classes_without_true_pixels_are_no_class(tmp_path):
    found = keep(tmp_path, truth_of(grid("7777 1177"), [(1, 0), (7, 0)]), cues=grid("7799 2277"))["cues"]
    assert found["things"] == {"recall": 0.0, "IoU": 0.0}
    assert found["stuff"] == pytest.approx({"precision": 100.0, "recall": 400 / 6, "IoU": 400 / 6}, abs=1e-3)


def test_maps_that_are_wrong(tmp_path):
    truth = truth_of(TRUE, SCENE)
    keep(tmp_path, truth, cues=TRUE)
    (tmp_path / "cues/000000000005.png").unlink()
    with pytest.raises(UserError, match="cues/000000000005.png: no such file"):
        measure_maps(tmp_path / "maps.json", truth, ONE)
    write_semantic_png(tmp_path / "cues/000000000005.png", np.zeros((3, 3), np.uint8))
    with pytest.raises(UserError, match="of 4 x 4 pixels was expected"):
        measure_maps(tmp_path / "maps.json", truth, ONE)
    assert measure_maps(tmp_path / "nothing.json", truth, ONE) == {}


def test_rounds_become_lines_of_a_plot(workspace):
    main(workspace / "params.yaml")
    assert read_json(layout.METRICS / "plots/rounds.json") == []
    assert "maps" not in read_json(layout.METRICS / "detail/score.json")["train"]
    truth = read_json(layout.TRUTH["train"])
    data = layout.method_data("irnet")
    annotations = []
    for image in truth["images"]:
        key, true = layout.image_key(image), np.zeros((60, 80), np.uint8)
        for item in sorted(truth["annotations"], key=lambda item: item["category_id"] != 40):  # things lie on the sky
            if item["image_id"] == image["id"]:
                true[rle.decode(item["segmentation"])] = item["category_id"]
        write_semantic_png(data / f"rounds/1/{key}.png", true)
        write_semantic_png(data / f"rounds/0/{key}.png", np.where(true == 40, 255, true).astype(np.uint8))
        path = data / "rounds/instances.json"
        sky = np.where(true == 40, 40, 0)
        annotations.append(write_segments(png_folder(path), image, sky, [{"id": 40, "category_id": 40}]))
    write_panoptic(path, truth["images"], truth["categories"], annotations)
    write_map_list(layout.label_maps("irnet"), [LabelMap("after", "rounds/1", "rounds/instances.json", 1),
                                                LabelMap("before", "rounds/0", round=0), LabelMap("a cue", "rounds/0")])
    main(workspace / "params.yaml")
    maps = read_json(layout.METRICS / "detail/score.json")["train"]["maps"]
    assert [*maps] == ["after", "before", "a cue"] and maps["a cue"] == {
        key: value for key, value in maps["before"].items() if key != "round"}
    assert maps["after"]["stuff"]["IoU"] == 100.0 and maps["before"]["stuff"]["IoU"] == 0.0
    assert maps["after"]["PQ_stuff"] == 100.0 and maps["after"]["PQ_things"] == 0.0
    first, second = read_json(layout.METRICS / "plots/rounds.json")
    assert (first["round"], first["stuff_IoU"], first["PQ"], first["stuff_precision"]) == (0, 0.0, None, None)
    assert (second["round"], second["stuff_IoU"], second["PQ_stuff"]) == (1, 100.0, 100.0)
    assert [*first] == [*second] == ["round", *COLUMNS]
    assert round_rows({}) == []
