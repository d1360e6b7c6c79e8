import json
from pathlib import Path

import pytest

from stages.evaluation.evaluate import main
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from tests.stages.evaluation.conftest import write_params


def result() -> dict:
    return read_json(layout.METRICS / "detail/evaluate.json")


def short() -> dict:
    return read_json(layout.METRICS / "evaluate.json")


def test_evaluate_and_retention(workspace, capsys):
    main(workspace / "params.yaml")
    found = result()
    assert found["available"] == 1
    assert found["coco"]["AP"] > 0
    assert found["panoptic"]["PQ"] > 0
    assert found["annotation"]["kind"] == "points"
    assert found["annotation"]["seconds_per_image"] == 23.3
    assert found["retention"]["available"] == 0
    assert "annotation, s per image" in capsys.readouterr().out
    assert short() == {
        "detector": {"AP25": found["voc"]["AP25"], "AP50": found["voc"]["AP50"], "AP": found["coco"]["AP"],
                     "PQ": found["panoptic"]["PQ"]},
        "retention": "unknown before a run with method: masks", "annotation": {"seconds_per_image": 23.3}}
    assert [row["class"] for row in read_json(layout.METRICS / "plots/detector_by_class.json")] == list(
        found["classes"])

    layout.predictions("masks").parent.mkdir(parents=True)
    truth = read_json(layout.TRUTH["val"])["annotations"]
    write_json(layout.predictions("masks"), [item | {"score": 1.0} for item in truth])
    main(write_params(workspace, method="masks"))
    full = result()
    assert full["voc"]["AP50"] == 100.0
    assert full["annotation"]["seconds_per_image"] == 239.7
    assert full["retention"]["voc"]["AP50"] == 100.0

    main(write_params(workspace))
    again = result()
    assert again["retention"]["voc"]["AP50"] == pytest.approx(found["voc"]["AP50"])
    assert again["retention"]["coco"]["AP"] == pytest.approx(found["coco"]["AP"])

    assert short()["retention"] == {"AP50": again["retention"]["voc"]["AP50"], "AP": again["retention"]["coco"]["AP"]}

    # Settings of the engine that does not run change nothing; those of the one that runs do.
    main(write_params(workspace, detector={"engine": "torchvision", "torchvision": {"backbone": "resnet18"}}))
    assert result()["retention"]["available"] == 1
    main(write_params(workspace, detector={"engine": "torchvision", "torchvision": {"backbone": "resnet34"}}))
    assert result()["retention"]["available"] == 0


def test_lvis_where_the_truth_says_what_was_looked_for(workspace, capsys):
    main(workspace / "params.yaml")
    assert "lvis" not in result()
    truth = read_json(layout.TRUTH["val"])
    for image in truth["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    for category in truth["categories"]:
        category["frequency"] = "c"
    write_json(layout.TRUTH["val"], truth)
    capsys.readouterr()
    main(workspace / "params.yaml")
    assert result()["lvis"]["AP"] == result()["lvis"]["APc"] >= result()["coco"]["AP"]
    assert short()["detector"]["LVIS_AP"] == result()["lvis"]["AP"]
    assert "LVIS AP / APr / APc / APf" in capsys.readouterr().out


def test_supervision_by_hand(workspace):
    main(write_params(workspace, evaluate={"supervision": "tags"}))
    assert result()["annotation"]["seconds_per_image"] == 20.0


def test_no_truth(workspace):
    truth = read_json(layout.TRUTH["val"])
    write_json(layout.TRUTH["val"], truth | {"annotations": [], "info": {"truth": "none", "reason": "tags only"}})
    main(workspace / "params.yaml")
    assert result()["available"] == 0
    assert result()["reason"] == "tags only"
    assert short() == {"detector": "no truth: tags only", "annotation": {"seconds_per_image": 23.3}}
    assert read_json(layout.METRICS / "plots/detector_by_class.json") == []
    assert result()["annotation"]["seconds_per_image"] == 23.3


def test_predictions_that_do_not_fit(workspace):
    write_json(layout.predictions("irnet"), {"annotations": []})
    with pytest.raises(UserError, match="COCO results"):
        main(workspace / "params.yaml")
    write_json(layout.predictions("irnet"), [{"image_id": 999, "category_id": 2, "segmentation": {}, "score": 1}])
    with pytest.raises(UserError, match="image_id 999 is not in"):
        main(workspace / "params.yaml")


@pytest.mark.parametrize(("path", "change", "message"), [
    (layout.predictions("irnet"), lambda c: c.append(3), "entry [0-9]+: an object was expected, found 3"),
    (layout.predictions("irnet"), lambda c: c[0].update(image_id=[1]), r"image_id \[1\] is not in"),
    (layout.predictions("irnet"), lambda c: c[0].update(category_id={}), "category_id {} is not in"),
    (layout.predictions("irnet"), lambda c: c[0].update(score="high"), "score and area must be numbers"),
    (layout.predictions("irnet"), lambda c: c[0].update(score=10**400), "score and area must be numbers"),
    (layout.TRUTH["val"], lambda c: c["annotations"][0].pop("area"), "segmentation and area were expected"),
    (layout.TRUTH["val"], lambda c: c["images"][0].update(neg_category_ids=3), "must be a list of category ids"),
    (layout.TRUTH["val"], lambda c: c.update(info=[]), "info: an object was expected"),
    (Path("metrics/reference.json"), lambda c: c.update(key=3), "figures of runs with method: masks were expected"),
    (Path("metrics/reference.json"), lambda c: c.update(key={"voc": {"AP50": "x"}}), "delete the file"),
])
def test_what_was_edited(workspace, path, change, message):
    content = read_json(path) if path.exists() else {}
    change(content)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"(?s){path.name}.*{message}"):
        main(workspace / "params.yaml")
    assert not (workspace / "metrics/evaluate.json").exists()


def test_mistyped_setting(workspace):
    with pytest.raises(UserError, match="min_scor"):
        main(write_params(workspace, evaluate={"min_scor": 0.5}))
    with pytest.raises(UserError, match="large_from must be above"):
        main(write_params(workspace, evaluate={"large_from": 10}))
