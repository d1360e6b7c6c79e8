import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from stages.evaluation.score import main
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json


def result() -> dict:
    return read_json(layout.METRICS / "score.json")


def test_score(workspace, capsys):
    main(workspace / "params.yaml")
    found = result()
    assert found["available"] == 1
    assert set(found) == {"available", "train"}
    assert 0 < found["train"]["voc"]["AP25"] <= 100
    assert "semantic" not in found["train"]
    assert "AP^r 25 / 50 / 70 / 75" in capsys.readouterr().out


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


def test_no_truth(workspace, capsys):
    for split in ("train", "val"):
        truth = read_json(layout.TRUTH[split])
        write_json(layout.TRUTH[split], truth | {"annotations": [], "info": {"truth": "none", "reason": "tags only"}})
    main(workspace / "params.yaml")
    assert result() == {"available": 0, "reason": "tags only"}
    assert "pseudo-labels: no numbers (tags only)" in capsys.readouterr().out


def test_labels_that_do_not_fit(workspace):
    labels = read_json(layout.pseudo_labels("irnet"))
    labels["annotations"][0]["segmentation"]["size"] = [61, 80]
    write_json(layout.pseudo_labels("irnet"), labels)
    with pytest.raises(UserError, match=r"pseudo_labels.json: does not fit .*\n.*the mask is \[61, 80\]"):
        main(workspace / "params.yaml")


def test_one_class_missing_from_truth_and_no_labels(workspace):
    labels = read_json(layout.pseudo_labels("irnet"))
    write_json(layout.pseudo_labels("irnet"), labels | {"annotations": []})
    main(workspace / "params.yaml")
    assert result()["train"]["voc"]["AP50"] == 0.0


@pytest.mark.parametrize("stage", ["score", "evaluate", "report"])
def test_help_is_quick_and_imports_nothing_heavy(stage):
    code = (f"import sys; sys.argv = ['x', '--help']\nimport runpy\ntry: runpy.run_module('stages.evaluation.{stage}', "
            "run_name='__main__')\nexcept SystemExit: pass\n"
            "heavy = {'torch', 'cv2', 'pycocotools', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
            "assert not heavy, heavy")
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
