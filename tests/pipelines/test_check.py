from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pipelines import check, networks
from pipelines.settings import METHODS, load_params
from pipelines.workspace import changed
from stages.detector import engines
from stages.runtime.errors import UserError
from stages.runtime.settings import read_yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder that looks like a clone: check reads the methods' dvc.yaml and writes data/check."""
    monkeypatch.chdir(tmp_path)
    for name in ("pipelines", "stages", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)

    def write(changes=None, preset="shapes"):
        params = changed(read_yaml(ROOT / f"pipelines/presets/{preset}.yaml"), changes or {})
        Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        return Path("params.yaml")

    return write


@pytest.fixture(autouse=True)
def answering_servers(monkeypatch):
    """Whether a test passes must not depend on a network."""
    monkeypatch.setattr(networks, "_answers", lambda server: True)


def _refused(params):
    with pytest.raises(UserError) as caught:
        check.main(params)
    assert not check.OUTPUT.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_says_what_will_run(clone, capsys):
    check.main(clone())
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["method"].startswith("irnet: prepare -> annotate -> train_classifier -> infer_cams ->")
    assert lines["method"].endswith("-> score -> train -> predict -> evaluate -> report")
    assert "about 240 training images" in lines["data"]
    assert "labels: tags" in lines["data"]
    assert "workers (loky), 1 training process(es), detector engine torchvision" in lines["device"]
    assert " min, " in lines["estimate"]
    assert "GB are free here" in lines["estimate"]


def test_the_output_never_changes(clone, capsys):
    contents = set()
    for changes in ({}, {"seed": 5, "dataset.limit": 7}, {"method": "masks"}):
        check.main(clone(changes))
        contents.add(check.OUTPUT.read_bytes())
    assert contents == {b"checked\n"}
    assert "about 7 training images" in capsys.readouterr().out


def test_a_mistyped_method(clone):
    assert "method: unknown method 'maskes'; did you mean 'masks'?" in _refused(clone({"method": "maskes"}))


def test_bestie_runs_irnet_first(clone, capsys):
    check.main(clone({"method": "bestie"}))
    method = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("method"))
    assert "bestie: prepare -> annotate -> irnet's train_classifier -> " in method
    assert "irnet's synthesize -> train_classifier -> infer_cues" in method
    assert "irnet's illustrate" not in method and "-> illustrate ->" in method


def test_proposals_are_made_for_those_who_want_them(clone, capsys):
    wise = {"method": "wise", "annotations.kinds": ["points"]}
    check.main(clone(wise))
    assert "wise: prepare -> annotate -> propose -> " in capsys.readouterr().out
    assert Path("data/code/proposals/propose").exists()
    check.OUTPUT.unlink()
    file = {"proposals.provider": "file", "proposals.source": "results.json",
            "proposals.file": {"name": "SharpMask", "trained_on_masks": True}}
    assert "proposals.source: there is no results.json;" in _refused(clone({**wise, **file}))
    check.main(clone(file))
    assert "propose" not in capsys.readouterr().out
    Path("results.json").touch()
    check.main(clone({**wise, **file}))


def test_maps_of_proposals(clone, capsys):
    wise = {"method": "wise", "annotations.kinds": ["points"]}
    assert _refused(clone({**wise, "proposals.maps.boundary": "data/irnet/field"})).startswith(
        "proposals.maps.boundary: there is no folder data/irnet/field; did you mean 'data/irnet/fields'?; put one .npz "
        "per image there, or write data/dataset/images, which stands for none, or data/irnet/fields, which")
    assert _refused(clone({**wise, "proposals.maps.features": "data/irnet/fields"})).endswith("which stands for none")
    check.main(clone({"proposals.maps.features": "nowhere"}))
    check.main(clone({**wise, "proposals.maps.boundary": "data/irnet/fields"}))
    method = next(line for line in capsys.readouterr().out.splitlines() if "wise:" in line)
    assert ("annotate -> irnet's train_classifier -> irnet's infer_cams -> irnet's mine_relations -> irnet's "
            "train_irnet -> irnet's infer_fields -> propose -> train_peaks ->") in method
    Path("features").mkdir()
    check.main(clone({**wise, "proposals.maps.features": "features"}))


def test_an_oracle_of_proposals_needs_proposals(clone):
    assert _refused(clone({"score.oracle": ["proposal"]})) == (
        "score.oracle: proposal needs a method that uses proposals, irnet uses none; remove it")
    check.main(clone({"score.oracle": ["mask"]}))
    check.main(clone({"score.oracle": ["proposal"], "method": "wise", "annotations.kinds": ["points"]}))


def test_weights_of_a_method_that_another_builds_on(clone):
    changes = {"irnet.classifier.backbone.weights": "nothing.pt"}
    check.main(clone({"method": "exits", "annotations.kinds": ["boxes"], **changes}))
    check.OUTPUT.unlink()
    assert "irnet.classifier.backbone.weights: no such weights file" in _refused(clone({"method": "bestie", **changes}))
    Path("maps").mkdir()
    Path("maps/000000000001.png").touch()
    check.main(clone({"method": "bestie", "bestie.maps.folder": "maps", **changes}))


def test_semantic_maps_that_are_not_there(clone, capsys):
    message = _refused(clone({"method": "bestie", "bestie.maps.folder": "data/irnet/semantics"}))
    assert message.startswith("bestie.maps.folder: there is no folder data/irnet/semantics; did you mean "
                              "'data/irnet/semantic'?")
    Path("maps").mkdir()
    assert "maps holds no PNG" in _refused(clone({"method": "bestie", "bestie.maps.folder": "maps"}))
    Path("maps/000000000001.png").touch()
    check.main(clone({"method": "bestie", "bestie.maps.folder": "maps"}))
    assert "irnet" not in capsys.readouterr().out
    check.main(clone({"method": "irnet", "bestie.maps.folder": "nowhere"}))


def test_a_missing_root(clone):
    message = _refused(clone({"dataset.root": "nowhere"}, "coco2017"))
    assert message.startswith("dataset: nowhere does not exist (dataset.kind: coco, dataset.root: nowhere)")
    assert "nowhere.py does not exist" in _refused(clone({"dataset.root": "nowhere.py"}))


def test_a_missing_part_of_the_data_is_named(clone):
    Path("data_set/images").mkdir(parents=True)
    Path("data_set/instances_train.json").write_text("{}")
    parts = {"kind": "coco", "root": "data_set", "train": "instances_train.json", "val": "instances_val.json"}
    assert "data_set/instances_val.json does not exist" in _refused(clone({"dataset": parts}))


def test_missing_weights_of_what_is_used(clone):
    key = "irnet.classifier.backbone.weights"
    assert _refused(clone({key: "absent.pth"})) == (
        f"{key}: no such weights file: absent.pth; give a file, 'imagenet' or 'none'")
    assert "detector.torchvision.weights: no such weights file" in _refused(
        clone({"detector.torchvision.weights": "absent.pth"}))
    Path("there.pth").touch()
    check.check_weights(load_params(clone({key: "there.pth"})))
    # Those of the other engine and of other methods do not matter.
    check.check_weights(load_params(clone({"detector.detectron2.weights": "absent.pth"})))
    check.check_weights(load_params(clone({key: "absent.pth", "method": "masks"})))


def test_a_missing_engine_is_one_line_with_its_command(clone, monkeypatch):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    message = _refused(clone({"detector.engine": "detectron2"}))
    assert message.startswith("detector.engine: Detectron2 is not installed;")
    assert "pip install" in message


def test_an_impossible_device(clone):
    assert _refused(clone({"runtime.device": "gpu"})).startswith("runtime.device: 'gpu' cannot be used here")


def test_more_processes_than_the_machine_has(clone, monkeypatch):
    monkeypatch.setattr(check.os, "cpu_count", lambda: 4)
    assert "runtime.processes: 5 training processes on 4 cores" in _refused(clone({"runtime.processes": 5}))
    from stages.runtime import devices

    monkeypatch.setattr(devices, "resolve", lambda device: SimpleNamespace(type="cuda"))
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 2)
    assert "runtime.processes: 3 processes, but 2 GPUs" in _refused(clone({"runtime.processes": 3}))


def test_a_folder_without_write_access(clone, monkeypatch):
    Path("metrics").mkdir()
    allowed = check.os.access
    monkeypatch.setattr(check.os, "access", lambda path, mode: Path(path) != Path("metrics") and allowed(path, mode))
    assert "metrics: this user may not write there" in _refused(clone())


def test_a_network_that_cannot_be_made(clone):
    message = _refused(clone({"irnet.classifier.backbone.name": "resnet_fifty"}))
    assert message.startswith("irnet.classifier: backbone 'resnet_fifty'")


def test_a_disk_that_is_too_small(clone, monkeypatch, capsys):
    monkeypatch.setattr(check.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    check.main(clone())
    assert "warning   this disk may be too small" in capsys.readouterr().out


def test_a_cpu_has_no_mixed_precision_of_detectron2(clone):
    for engine, precision, warned in (("detectron2", "bf16-mixed", True), ("detectron2", "32-true", False),
                                      ("torchvision", "bf16-mixed", False)):
        changes = {"runtime.device": "cpu", "runtime.precision": precision, "detector.engine": engine}
        lines = check.describe(load_params(clone(changes)))
        assert any("Detectron2 has it on CUDA alone" in line for line in lines) == warned


def test_photographs_are_counted(clone):
    """Those that the JSON lists, whatever else lies in the folder."""
    Path("photos/images").mkdir(parents=True)
    for name in ("a.jpg", "b.PNG", "unlisted.jpeg", "notes.txt"):
        Path("photos/images", name).touch()
    Path("photos/instances_train.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.PNG"}], "annotations": []}')
    settings = load_params(clone({"dataset.root": "photos"}, "photos"))
    assert check.count_images(settings) == (2, 640 * 480)


def test_a_budget_is_counted_and_checked(clone, capsys):
    check.main(clone({"dataset.budget_seconds": 2000.0}))
    assert "about 100 training images" in capsys.readouterr().out
    check.main(clone({"dataset.budget_seconds": 2000.0, "dataset.limit": 7}))
    assert "about 7 training images" in capsys.readouterr().out
    check.OUTPUT.unlink()
    assert _refused(clone({"dataset.budget_seconds": 5})).startswith("dataset.budget_seconds: 5 s are less than one")
    assert "dataset.budget_seconds: input should be greater than 0" in _refused(clone({"dataset.budget_seconds": -1}))


def test_durations():
    assert [check._duration(seconds) for seconds in (0, 100, 5000, 3 * 3600, 100 * 3600)] == [
        "1 min", "2 min", "83 min", "3 h", "4 days"]


def test_as_a_command(clone):
    clone({"method": "irnte"})
    result = subprocess.run([sys.executable, "-m", "pipelines.check"], capture_output=True, text=True, check=False,
                            timeout=60)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == ("error: params.yaml: method: unknown method 'irnte'; did you mean 'irnet'? "
                             f"(allowed: {', '.join(METHODS)})\n")


def test_a_reference_for_retention_is_there_and_is_kept(clone, monkeypatch):
    folder = clone({}).parent
    monkeypatch.chdir(folder)
    check.main(folder / "params.yaml")
    assert check.REFERENCE.read_text() == "{}\n"
    check.REFERENCE.write_text('{"a": 1}')
    check.main(folder / "params.yaml")
    assert check.REFERENCE.read_text() == '{"a": 1}'
