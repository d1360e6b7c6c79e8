"""The command line around a rehearsal; deliberately broken presets, and what the user sees of each."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from pipelines import check, networks, rehearse, workspace
from pipelines.rehearsal import miniatures, quote, rehearsal
from pipelines.rehearsal.rehearsal import Rehearsal, outputs, planned_of, table
from pipelines.rehearse import preset_file
from pipelines.settings import load_params
from pipelines.workspace import changed
from stages.runtime.errors import UserError
from stages.runtime.settings import read_yaml

ROOT = Path(__file__).resolve().parents[2]


class CheckOnly:
    """A workspace in which `check` alone runs, in this process: a folder that looks like a clone."""

    def __init__(self, name, own_cache):
        self.folder = rehearsal.ROOT / ".work/workspaces" / name
        self.folder.mkdir(parents=True)
        for part in ("pipelines", "stages", "dvc.yaml"):
            (self.folder / part).symlink_to(ROOT / part)

    def reproduce(self, params, *targets, log, watcher):
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            watcher.running("check")
            check.main(Path("params.yaml"))
        raise UserError("checked")


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Rehearse a preset with some changes as far as `check`; the message at the end."""
    monkeypatch.setattr(networks, "_answers", lambda server: False)
    monkeypatch.setattr(networks, "_is_cached", lambda name: False)
    monkeypatch.setattr(miniatures, "SIZES", {kind: (90, 120) for kind in miniatures.SIZES})
    monkeypatch.setattr(rehearsal, "Workspace", CheckOnly)
    monkeypatch.setattr(rehearsal, "ROOT", tmp_path)
    monkeypatch.setattr(rehearsal, "planned_of", lambda stage, plans: [])

    def run(changes, method="irnet", preset="voc2012"):
        file = tmp_path / "mine.yaml"
        # The engine that is there wherever the tests run.
        mine = {"detector.engine": "torchvision", **changes}
        file.write_text(yaml.safe_dump(changed(read_yaml(ROOT / f"pipelines/presets/{preset}.yaml"), mine)))
        with pytest.raises(UserError) as caught:
            Rehearsal(file, method).run()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


def test_a_preset_that_works_passes_check(broken):
    assert broken({}) == "checked"


def test_wrong_weights(broken, tmp_path):
    key = "irnet.classifier.backbone.weights"
    assert broken({key: "nowhere.pth"}) == (f"{key}: no such weights file: nowhere.pth; give a file, 'imagenet' or "
                                            f"'none'")
    other = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(3)}, other)
    assert broken({key: str(other)}).startswith(f"irnet.classifier: {other}: these weights do not fit")


def test_a_stride_that_cannot_be_had(broken):
    message = broken({"irnet.classifier.backbone.stride": 12})
    assert message.startswith("irnet.classifier") and "stride" in message and "12" in message


def test_a_configuration_that_detectron2_does_not_have(broken):
    pytest.importorskip("detectron2")
    message = broken({"detector.engine": "detectron2", "detector.detectron2.config":
                      "COCO-InstanceSegmentation/mask_rcnn_R_51_FPN_1x.yaml"})
    assert message.startswith("detector.detectron2.config: ") and "mask_rcnn_R_51_FPN_1x.yaml" in message


def test_too_little_disk(broken, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3e9))
    message = broken({})
    assert "3.0 GB are free, and the 3 trainings of a rehearsal of mine-irnet need about 6 GB; make room" in message


def test_unknown_names(tmp_path, capsys, monkeypatch):
    with pytest.raises(UserError, match=r"PRESET=voc: no such preset; did you mean 'voc2012'\? \(there are: city"):
        preset_file("voc")
    assert preset_file("lvis") == ROOT / "pipelines/presets/lvis.yaml"
    with pytest.raises(UserError, match=r"METHOD=irnt: unknown method; did you mean 'irnet'"):
        Rehearsal(preset_file("voc2012"), "irnt")
    with pytest.raises(UserError, match="ROOT=nowhere: no such folder"):
        Rehearsal(preset_file("voc2012"), "irnet", Path("nowhere"))
    (tmp_path / "mine.yaml").write_text((ROOT / "pipelines/presets/voc2012.yaml").read_text().replace("crop:", "krop:"))
    monkeypatch.setattr(sys, "argv", ["rehearse", str(tmp_path / "mine.yaml"), "irnet"])
    with pytest.raises(SystemExit):
        rehearse.main()
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "unknown key" in error and "mine.yaml" in error


def test_a_miniature_stays_in_its_folder(broken, tmp_path):
    """What a preset names outside of its root is the user's own, and is not to be written."""
    real = tmp_path / "real/SBD"
    real.mkdir(parents=True)
    (real / "train.txt").write_text("mine")
    assert broken({"dataset.sbd": str(real)}) == (
        f"dataset.sbd: {real} leads out of the folder of a miniature, which would be written there; rehearse on the "
        f"real data: ROOT=...")
    more = {"dataset.train": "../../../../instances_train2017.json"}
    assert broken(more, preset="coco2017").startswith("dataset.train: ../../../../instances_train2017.json leads out")
    assert [path.name for path in real.parent.rglob("*")] == ["SBD", "train.txt"]
    assert not [*tmp_path.rglob("instances_train2017.json")]


def test_batches_are_halved_until_they_fit(monkeypatch):
    one = Rehearsal(preset_file("voc2012"), "irnet", batch=4, memory=24e9)
    assert one.most["irnet.network"] == 4 and one.images == 4
    watch = SimpleNamespace(last="pipelines/irnet/dvc.yaml:train_irnet", exceeded=None)
    failed = UserError("`dvc repro` failed: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    one.lower(watch, failed)
    watch.exceeded = watch.last
    one.lower(watch, UserError("`dvc repro` failed: exited with -9"))
    assert one.most == {"irnet.classifier": 4, "irnet.network": 1, "detector.train": 4}
    assert one.changes()["irnet.network.batch_size"] == 1
    with pytest.raises(UserError, match="train_irnet: needs more than 24 GB of memory, and no smaller batch is left"):
        one.lower(watch, failed)
    watch.last = watch.exceeded = "pipelines/irnet/dvc.yaml:infer_cams"
    with pytest.raises(UserError, match="infer_cams: needs more than 24 GB of memory"):
        one.lower(watch, failed)
    watch.exceeded = None
    with pytest.raises(UserError, match="^other$"):
        one.lower(watch, UserError("other"))


@pytest.mark.parametrize("method, stage, key", [
    ("irnet", "pipelines/irnet/dvc.yaml:train_irnet", ["irnet.network"]),
    ("irnet", "pipelines/irnet/dvc.yaml:infer_cams", []),
    ("irnet", "train", ["detector.train"]),
    ("bestie", "pipelines/bestie/dvc.yaml:train_segmenter", ["bestie.maps.segmenter"]),
    ("panoptic", "pipelines/panoptic/dvc.yaml:refine", ["panoptic.network"]),
    ("panoptic", "pipelines/panoptic/dvc.yaml:train_instances", ["panoptic.instances"]),
    ("panoptic", "pipelines/panoptic/dvc.yaml:train_detector", ["panoptic.detector.train"]),
    ("exits", "pipelines/exits/dvc.yaml:train_generator", ["exits.generator"]),
    ("exits", "pipelines/exits/dvc.yaml:propagate", []),
    ("wise", "pipelines/wise/dvc.yaml:train_wise", ["wise.network"])])
def test_a_stage_and_its_training(method, stage, key):
    plans = Rehearsal(preset_file("voc2012"), method).trainings
    assert [plan.key for plan in planned_of(stage, plans)] == key


def test_sizes_come_from_the_lock_files(tmp_path):
    (tmp_path / "pipelines/a").mkdir(parents=True)
    lock = {"stages": {"one": {"outs": [{"path": "data/x", "size": 7}]}, "check": {}}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    (tmp_path / "pipelines/a/dvc.lock").write_text(yaml.safe_dump(lock))
    assert outputs(tmp_path) == {"one": {"data/x": 7}, "check": {}, "pipelines/a/dvc.yaml:one": {"data/x": 7},
                                 "pipelines/a/dvc.yaml:check": {}}


@pytest.fixture
def rehearsed(tmp_path, monkeypatch):
    """A folder that looks like a clone, and a file as a rehearsal of `shapes` leaves it."""
    monkeypatch.chdir(tmp_path)
    for name in ("pipelines", "stages", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    params = read_yaml(ROOT / "pipelines/presets/shapes.yaml")

    def write(name="shapes-irnet", **run):
        quote.FOLDER.mkdir(parents=True, exist_ok=True)
        given = {"device": quote.device_name(torch.device("cpu")), "busy": 0.1, "settings": params,
                 "code": quote.code(), **run}
        full = {"hours": 30.0, "disk_gb": 5.5, "train_images": 240}
        (quote.FOLDER / f"{name}.json").write_text(json.dumps({"full": full, "run": given}))

    return write


def test_check_quotes_what_was_rehearsed_on_this_device(rehearsed):
    cpu, settings = torch.device("cpu"), load_params(ROOT / "pipelines/presets/shapes.yaml")
    assert quote.quote(settings, cpu, 240) is None
    rehearsed("another-irnet", device="a GPU")
    assert quote.quote(settings, cpu, 240) is None
    rehearsed("busy-irnet", busy=4.0)  # other work ran beside it
    rehearsed("old-irnet", code="of another version")
    assert quote.quote(settings, cpu, 240) is None
    rehearsed()
    found = quote.quote(settings, cpu, 240)
    assert (found.seconds, found.bytes, found.path.name) == (30 * 3600, 5.5e9, "shapes-irnet.json")
    elsewhere = SimpleNamespace(**{**vars(settings), "dataset": settings.dataset.model_copy(update={"root": "x"})})
    assert quote.quote(elsewhere, cpu, 240) is not None
    assert quote.quote(elsewhere, cpu, 5000) is None  # the same settings on another folder
    more = settings.dataset.model_copy(update={"limit": 5})
    assert quote.quote(SimpleNamespace(**{**vars(settings), "dataset": more}), cpu, 5) is None
    (quote.FOLDER / "shapes-irnet.json").write_text("{}")
    assert quote.quote(settings, cpu, 240) is None
    rehearsed(settings={"method": "irnet"})
    assert quote.quote(settings, cpu, 240) is None


def test_check_says_so(rehearsed, monkeypatch, tmp_path, capsys):
    rehearsed()
    shutil.copy(ROOT / "pipelines/presets/shapes.yaml", tmp_path / "params.yaml")
    monkeypatch.setattr(networks, "_answers", lambda server: True)
    check.main(Path("params.yaml"))
    assert ("estimate  30 h, 5.5 GB of results (at the pace of the rehearsal in metrics/rehearsal/shapes-irnet.json); "
            in capsys.readouterr().out)


@pytest.mark.slow
def test_a_whole_rehearsal(tmp_path, monkeypatch, capsys):
    """Of the embedded data set, with DVC: the file and the table."""
    monkeypatch.setattr(sys, "argv", ["rehearse", "shapes", "irnet", "--offline"])
    for module in (rehearse, rehearsal, workspace):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    for name in ("pipelines", "stages", "dvc.yaml", ".dvcignore"):
        (tmp_path / name).symlink_to(ROOT / name)
    rehearse.main()
    text = capsys.readouterr().out
    found = json.loads((tmp_path / "metrics/rehearsal/shapes-irnet.json").read_text())
    assert table(found) in text and str(tmp_path) not in json.dumps(found)
    row = found["irnet/train_irnet"]
    assert row["batch"] == 4 and row["seconds"] > 0 and row["peak_mb"] > 100 and row["full_hours"] > 0
    assert found["full"]["train_images"] == 240 and found["full"]["hours"] < 5
    assert found["run"]["changed"]["irnet.classifier.steps"] == 3
    assert {"check", "prepare", "train", "report"} <= set(found)
