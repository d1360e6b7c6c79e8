import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from stages.evaluation.score import main
from stages.labels.figures import figures_path, write_figures
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from tests.stages.evaluation.conftest import write_params


def result() -> dict:
    return read_json(layout.METRICS / "detail/score.json")


def short() -> dict:
    return read_json(layout.METRICS / "score.json")


def test_score(workspace, capsys):
    main(workspace / "params.yaml")
    found = result()
    assert found["available"] == 1
    assert set(found) == {"available", "train"}, "no labels of val, no proposals, no oracle"
    assert 0 < found["train"]["voc"]["AP25"] <= 100
    assert "semantic" not in found["train"]
    assert "AP^r 25 / 50 / 70 / 75" in capsys.readouterr().out
    assert short() == {"labels": {
        "AP25": found["train"]["voc"]["AP25"], "AP50": found["train"]["voc"]["AP50"],
        "AP": found["train"]["coco"]["AP"], "object_mIoU": found["train"]["objects"]["mean_iou"],
        "recall": found["train"]["objects"]["recall50"]}}, "no object is separated, there are no semantic maps"


def test_the_method_has_its_own_figures_in_the_headline(workspace):
    write_figures(figures_path("irnet"), {"classifier_mAP": 81.25, "pairs": 3})
    main(workspace / "params.yaml")
    assert short()["method"] == {"classifier_mAP": 81.25, "pairs": 3}
    assert result()["method"] == {"classifier_mAP": 81.25, "pairs": 3}
    write_json(figures_path("irnet"), {"figures": {"classifier_mAP": "good"}})
    with pytest.raises(UserError, match="figures.json: at most 3 numbers"):
        main(workspace / "params.yaml")


def test_bars_by_class(workspace):
    main(workspace / "params.yaml")
    classes = result()["train"]["classes"]
    assert read_json(layout.METRICS / "plots/labels_by_class.json") == [
        {"class": name, "AP50": classes[name]["AP50"], "AP": classes[name]["coco_AP"],
         "object_mIoU": classes[name]["mean_iou"]} for name in ("class 0", "class 1", "class 2")]


def test_labels_kept_during_a_training(workspace):
    main(workspace / "params.yaml")
    assert read_json(layout.METRICS / "plots/moments.json") == [], "the method keeps none"
    truth = read_json(layout.TRUTH["train"])
    kept = [{**item, "score": 1.0, "kind": "refined"} for item in truth["annotations"] if not item.get("iscrowd", 0)]
    write_json(layout.method_data("irnet") / "moments.json", {
        "images": [image["id"] for image in truth["images"]],
        "moments": [{"share": 0.5, "annotations": []}, {"share": 1.0, "annotations": kept}]})
    main(workspace / "params.yaml")
    first, last = read_json(layout.METRICS / "plots/moments.json")
    nothing = {"pseudo_true": 0, "pseudo_false": 0, "refined_true": 0, "refined_false": 0}
    assert first == {"training": 50.0, **nothing}
    assert last == {"training": 100.0, **nothing, "refined_true": len(kept)}


def test_validation_labels_and_semantic_maps(workspace):
    truth = read_json(layout.TRUTH["val"])
    write_json(layout.method_data("irnet") / "pseudo_labels_val.json", truth)
    folder = layout.method_data("irnet") / "semantic"
    folder.mkdir()
    for image in read_json(layout.TRUTH["train"])["images"]:
        Image.fromarray(np.full((60, 80), 40 if image["id"] == 10 else 0, np.uint8)).save(
            folder / f"{layout.image_key(image)}.png")
    shutil.copy(folder / "000000000010.png", folder / "unused.png")
    main(workspace / "params.yaml")
    found = result()
    assert found["val"]["voc"]["AP50"] == 100.0
    assert found["train"]["semantic"]["background_IoU"] > 0
    assert found["train"]["semantic"]["mIoU_with_stuff"] > 0


def test_labels_from_the_annotated_points_of_val(workspace, capsys):
    truth = read_json(layout.TRUTH["val"])
    data = layout.method_data("irnet")
    write_json(data / "pseudo_labels_val.json", truth | {"annotations": []})
    write_json(data / "pseudo_labels_val_points.json", truth)
    main(workspace / "params.yaml")
    found = result()
    assert (found["val"]["voc"]["AP50"], found["val_points"]["voc"]["AP50"]) == (0.0, 100.0)
    assert set(short()) == {"labels", "labels_val"}, "the headline has no room for them"
    assert "from the annotated points" in capsys.readouterr().out
    write_json(layout.TRUTH["val"], truth | {"annotations": [], "info": {"truth": "none", "reason": "tags only"}})
    main(workspace / "params.yaml")
    assert result()["val_points_reason"] == "tags only"


def test_coverage_where_it_is_asked_for(workspace):
    write_params(workspace, score={"coverage": True})
    main(workspace / "params.yaml")
    found = result()["train"]
    objects = [item for item in read_json(layout.TRUTH["train"])["annotations"]
               if not item["iscrowd"] and item["category_id"] != 40]
    assert found["coverage"]["images"] == len({item["image_id"] for item in objects})
    assert 0 < found["coverage"]["mucov"] <= 100 and 0 < found["coverage"]["mwcov"] <= 100
    write_params(workspace, score={})
    main(workspace / "params.yaml")
    assert "coverage" not in result()["train"]


def test_no_truth(workspace, capsys):
    for split in ("train", "val"):
        truth = read_json(layout.TRUTH[split])
        write_json(layout.TRUTH[split], truth | {"annotations": [], "info": {"truth": "none", "reason": "tags only"}})
    main(workspace / "params.yaml")
    assert result() == {"available": 0, "reason": "tags only"}
    assert short() == {"labels": "no truth: tags only"}
    assert read_json(layout.METRICS / "plots/labels_by_class.json") == []
    assert read_json(layout.METRICS / "plots/moments.json") == []
    assert "pseudo-labels: no numbers (tags only)" in capsys.readouterr().out


@pytest.mark.parametrize("without", ["train", "val"])
def test_no_truth_of_one_split(workspace, without):
    write_json(layout.method_data("irnet") / "pseudo_labels_val.json", read_json(layout.TRUTH["val"]))
    truth = read_json(layout.TRUTH[without])
    write_json(layout.TRUTH[without], truth | {"annotations": [], "info": {"truth": "none", "reason": "tags only"}})
    main(workspace / "params.yaml")
    measured, missing = ("labels_val", "labels") if without == "train" else ("labels", "labels_val")
    assert short()[missing] == "no truth: tags only"
    assert short()[measured]["AP50"] >= 0
    assert result()[f"{without}_reason"] == "tags only"


def test_labels_that_do_not_fit(workspace):
    labels = read_json(layout.pseudo_labels("irnet"))
    labels["annotations"][0]["segmentation"]["size"] = [61, 80]
    write_json(layout.pseudo_labels("irnet"), labels)
    with pytest.raises(UserError, match=r"pseudo_labels.json: 1 damaged mask.*\n.*RLE size \[61, 80\]"):
        main(workspace / "params.yaml")


def test_one_class_missing_from_truth_and_no_labels(workspace):
    labels = read_json(layout.pseudo_labels("irnet"))
    write_json(layout.pseudo_labels("irnet"), labels | {"annotations": []})
    main(workspace / "params.yaml")
    assert result()["train"]["voc"]["AP50"] == 0.0


@pytest.mark.parametrize("stage", ["score", "evaluate", "report"])
def test_measuring_needs_no_torch(stage):
    code = (f"import sys; sys.argv = ['x', '--help']\nimport runpy\ntry: runpy.run_module('stages.evaluation.{stage}', "
            "run_name='__main__')\nexcept SystemExit: pass\n"
            "heavy = {'torch', 'torchvision', 'matplotlib'} & set(sys.modules)\n"
            "assert not heavy, heavy")
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
