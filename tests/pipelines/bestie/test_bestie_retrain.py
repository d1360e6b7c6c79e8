"""The stage that trains anew on a network's own labels, in a small chain (table 5)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from chain import digests
from small_chain import MANY, POINTS, copy, read, run, see_no_background

from pipelines.bestie import retraining
from pipelines.bestie.learning import image_classes
from pipelines.bestie.samples import LabelledCrops
from pipelines.bestie.transfer import pseudo_label
from stages.labels import rle
from stages.runtime.errors import UserError
from stages.runtime.training import train_network


@pytest.mark.parametrize("variant", ["tags", "points"])
def test_without_retraining_the_first_network_is_handed_on(variant, request, tmp_path):
    folder, changes = request.getfixturevalue(variant), POINTS if variant == "points" else {}
    refiner, retrained = (digests(folder / "models/bestie" / name) for name in ("refiner", "retrained"))
    assert retrained == {name: value for name, value in refiner.items() if not name.startswith("curves/")}
    # Labels of the first network itself, put where the stage looks.
    copy(folder, tmp_path)
    shutil.rmtree(tmp_path / "models/bestie/retrained")
    shutil.copytree(folder / "models/bestie/refiner", tmp_path / "models/bestie/retrained")
    run("pipelines.bestie.synthesize", tmp_path, **changes)
    written = digests(tmp_path / "data/bestie")
    assert written.items() <= digests(folder / "data/bestie").items() and "pseudo_labels.json" in written


def test_handing_on_takes_no_time(tags, tmp_path):
    """That is: torch is not imported."""
    copy(tags, tmp_path)
    run("pipelines.bestie.retrain", tmp_path)
    shutil.rmtree(tmp_path / "models/bestie/retrained")
    code = ("import sys; from pathlib import Path; from pipelines.bestie.retrain import main; "
            "main(Path('params.yaml')); assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60,
                   env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])})
    assert digests(tmp_path / "models/bestie/retrained") == digests(tags / "models/bestie/retrained")
    (tmp_path / "models/bestie/refiner/weights.pt").unlink()
    with pytest.raises(UserError, match=r"refiner/weights.pt: no such file.*bestie-retrain needs it"):
        run("pipelines.bestie.retrain", tmp_path)


@pytest.mark.parametrize("variant", ["tags", "points"])
def test_a_network_is_trained_anew_on_the_labels_of_the_first(variant, request, tmp_path):
    """Its pseudo labels are the instances that the first finds, but for those of fewer than nine pixels."""
    folder, changes = request.getfixturevalue(variant), POINTS if variant == "points" else MANY
    copy(folder, tmp_path)
    see_no_background(tmp_path / "models/bestie/refiner")
    shutil.copytree(tmp_path / "models/bestie/refiner", tmp_path / "models/bestie/retrained", dirs_exist_ok=True)
    run("pipelines.bestie.synthesize", tmp_path, **changes)
    wanted = read(tmp_path / "data/bestie/pseudo_labels.json")["annotations"]
    run("pipelines.bestie.retrain", tmp_path, retraining={"iterations": 1}, **changes)
    found = read(tmp_path / "models/bestie/retrained/moments.json")
    assert len(found["moments"]) == 4
    for moment in found["moments"]:
        given = [one for one in moment["annotations"] if one["kind"] == "pseudo"]
        for image in found["images"]:
            masks = [sorted((one["category_id"], one["segmentation"]["counts"]) for one in annotations
                            if one["image_id"] == image and rle.area(one["segmentation"]) >= 9)
                     for annotations in (given, wanted)]
            assert masks[0] == masks[1]
            assert len(masks[0]) > (0 if variant == "points" else 5)
    assert set(digests(tmp_path / "models/bestie/retrained")) == set(digests(tmp_path / "models/bestie/refiner"))
    for name in ("weights.pt", "moments.json"):
        assert (tmp_path / "models/bestie/retrained" / name).read_bytes() != (
            folder / "models/bestie/refiner" / name).read_bytes()
    for stage in ("synthesize", "illustrate"):
        run(f"pipelines.bestie.{stage}", tmp_path, **changes)
    assert (tmp_path / "data/bestie/moments.json").read_bytes() == (
        tmp_path / "models/bestie/retrained/moments.json").read_bytes()


def test_the_labels_alone_tell_a_retraining_from_the_first_training(tags, tmp_path, monkeypatch):
    """With the transfer's pseudo instances as labels, and crops that cut nothing off, it is the same training."""
    whole = {"augment": {"crop": 64, "long_side": None, "scale": [1.0, 1.0]}}
    copy(tags, tmp_path)
    run("pipelines.bestie.train_refiner", tmp_path, network=whole)

    def transferred(trained, cues, train, settings, device):
        ids = read(trained / "refiner.json")["category_ids"]
        crops = LabelledCrops(train["images"], image_classes(train, ids), Path("data/bestie/semantic"), cues, ids,
                              settings)

        def infer(_, image, pixels):
            known = crops.known(image, pixels.shape[1:])
            label = pseudo_label(known.semantic, known.classes, known.cues, smallest=9)
            return {"masks": label.instances.astype(np.uint16), "categories": np.array(ids)[label.centres[:, 0]],
                    "points": np.full(len(label.centres), -1)}

        return infer

    monkeypatch.setattr(retraining, "mask_inference", transferred)
    run("pipelines.bestie.retrain", tmp_path, network=whole, retraining={"iterations": 1})
    assert digests(tmp_path / "models/bestie/retrained") == digests(tmp_path / "models/bestie/refiner")
    pseudo = read(tmp_path / "models/bestie/retrained/moments.json")["moments"][0]["annotations"]
    assert any(one["kind"] == "pseudo" for one in pseudo)


def test_a_killed_retraining_goes_on_and_the_number_of_iterations_may_change(tags, tmp_path, monkeypatch):
    copy(tags, tmp_path)
    wanted = {}
    for iterations in (1, 2):
        run("pipelines.bestie.retrain", tmp_path, retraining={"iterations": iterations}, **MANY)
        wanted[iterations] = digests(tmp_path / "models/bestie/retrained")
    assert wanted[1]["weights.pt"] != wanted[2]["weights.pt"]

    class KilledError(Exception):
        pass

    trained: list[str] = []

    def killed_in_the_second(*arguments, **more):
        trained.append(more["description"])
        if trained == ["bestie-retrain 1: training", "bestie-retrain 2: training"]:
            raise KilledError
        train_network(*arguments, **more)

    monkeypatch.setattr(retraining, "train_network", killed_in_the_second)
    with pytest.raises(KilledError):
        run("pipelines.bestie.retrain", tmp_path, retraining={"iterations": 2}, **MANY)
    work = next((tmp_path / ".work").glob("bestie-retrain-*/1/result"))
    shutil.copytree(work.parents[1], tmp_path / "kept")
    run("pipelines.bestie.retrain", tmp_path, retraining={"iterations": 1}, **MANY)
    assert digests(tmp_path / "models/bestie/retrained") == wanted[1]
    shutil.copytree(tmp_path / "kept", work.parents[1])
    seen: list[str] = []
    monkeypatch.setattr(retraining, "mask_inference", lambda folder, *rest: seen.append(folder.name))
    run("pipelines.bestie.retrain", tmp_path, retraining={"iterations": 2}, **MANY)
    assert digests(tmp_path / "models/bestie/retrained") == wanted[2]
    assert seen == [], "the labels of both iterations were there"
