from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
import yaml

from pipelines import photos, workspace
from pipelines.settings import METHODS, load_params, with_method
from pipelines.workspace import changed, look_up
from stages.runtime.errors import UserError
from stages.runtime.settings import read_yaml


def test_changed_is_a_copy():
    before = {"a": {"b": {"c": 1, "d": [1, 2]}}, "e": 2}
    after = changed(before, {"a.b.c": 5, "e": {"f": 3}, "new.key": None})
    assert after == {"a": {"b": {"c": 5, "d": [1, 2]}}, "e": {"f": 3}, "new": {"key": None}}
    after["a"]["b"]["d"].append(3)
    assert before == {"a": {"b": {"c": 1, "d": [1, 2]}}, "e": 2}
    assert changed(before, {}) == before


def test_changed_through_what_is_no_section():
    for path in ("e.f", "a.b.c.d"):
        with pytest.raises(UserError, match=f"^{path}: . is not a section$"):
            changed({"a": {"b": {"c": 1}}, "e": 2}, {path: 1})


def test_look_up():
    content = {"voc": {"AP50": 12, "AP25": 0.5}, "reason": "none", "available": True}
    assert look_up(content, "voc.AP50") == 12.0
    assert look_up(content, "voc.AP25") == 0.5
    for path in ("voc", "voc.AP75", "reason", "voc.AP50.more", "absent.AP50"):
        assert look_up(content, path) is None


def _write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _files(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_mirror(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    files = {"a.py": "a", "kept/b.py": "b", "kept/deep/c.yaml": "c"}
    _write(source, {**files, "kept/__pycache__/b.pyc": "x"})
    workspace._mirror(source, target)
    assert _files(target) == files
    os.utime(target / "a.py", (1, 1))
    os.utime(target / "kept/b.py", (1, 1))
    _write(target, {"gone.py": "g", "removed/method/d.py": "d", "removed/method/__pycache__/d.pyc": "x",
                    "kept/__pycache__/b.pyc": "x", "was_folder/e.py": "e"})
    _write(source, {"kept/b.py": "new", "was_folder": "now a file"})
    workspace._mirror(source, target)
    assert _files(target) == {**files, "kept/b.py": "new", "was_folder": "now a file", "kept/__pycache__/b.pyc": "x"}
    assert not (target / "removed").exists()
    assert (target / "a.py").stat().st_mtime == 1, "an equal file is left alone"
    assert (target / "kept/b.py").stat().st_mtime != 1


def test_provenance_says_what_it_was_made_with():
    found = workspace.provenance({"seed": 3, "method": "irnet"})
    assert found["settings"] == {"seed": 3, "method": "irnet"}
    assert found["seed"] == 3
    assert {"python", "torch", "dvc"} <= set(found["versions"])


def test_several_seeds_take_the_place_of_the_one_in_the_settings():
    found = workspace.provenance({"seed": 3, "method": "irnet"}, [0, 1])
    assert found["settings"] == {"method": "irnet"}
    assert found["seeds"] == [0, 1]
    assert "seed" not in found


def test_a_workspace_runs_apart_from_the_clone(tmp_path, monkeypatch):
    root = tmp_path / "clone"
    _write(root, {".dvcignore": "__pycache__\n",
                  "dvc.yaml": "stages:\n  copy:\n    cmd: cp params.yaml out\n    deps: [params.yaml, stages/a.py]\n"
                              "    outs: [out]\n", "stages/a.py": "", "pipelines/b.py": "", "params.yaml": "user's"})
    monkeypatch.setattr(workspace, "ROOT", root)
    monkeypatch.setattr(workspace, "load_params", lambda path: None)
    monkeypatch.setattr(workspace, "_cache", lambda: tmp_path / "cache")
    place = workspace.Workspace("test")
    assert place.folder == root / ".work/workspaces/test"
    done = place.reproduce({"seed": 1}, "copy")
    assert done.ran == ("copy",)
    assert done.seconds > 0
    assert (place.folder / "out").read_text() == "seed: 1\n"
    assert (tmp_path / "cache").exists()
    assert place.reproduce({"seed": 1}, "copy").ran == (), "nothing has changed"
    (place.folder / ".dvc/tmp/rwlock").write_text("")  # as a SIGKILL in the wrong moment leaves it
    place.reproduce({"seed": 2}, "copy")
    assert (place.folder / "out").read_text() == "seed: 2\n"
    other, log = workspace.Workspace("other"), tmp_path / "logs/other.log"
    assert other.reproduce({"seed": 2}, "copy", log=log).ran == (), "the first one's cache has it"
    assert "Stage 'copy' is cached" in log.read_text()
    with pytest.raises(UserError, match="`dvc repro` failed in .*its messages are above"):
        place.reproduce({"seed": 1}, "absent")
    with pytest.raises(UserError, match=rf"^`dvc repro` failed: ERROR: .*'absent'.*\n\(all its messages: {log}\)$"):
        other.reproduce({"seed": 1}, "absent", log=log)
    assert (root / "params.yaml").read_text() == "user's"
    assert sorted(path.name for path in root.iterdir()) == [".dvcignore", ".work", "dvc.yaml", "params.yaml",
                                                            "pipelines", "stages"]


def test_an_earlier_run_s_error_is_not_this_one_s(tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.write_text("torch.OutOfMemoryError: CUDA out of memory\n")
    monkeypatch.setattr(workspace, "load_params", lambda path: None)
    monkeypatch.setattr(workspace, "mend", lambda folder: None)
    ended = [sys.executable, "-c", "import sys; sys.exit(137)"]
    place = SimpleNamespace(folder=tmp_path, _command=lambda *words: ended)
    with pytest.raises(UserError, match="`dvc repro` failed: it said nothing"):
        workspace.Workspace.reproduce(place, {"seed": 1}, log=log)


def test_the_last_error_is_the_stage_s_own():
    dvc = "ERROR: failed to reproduce 'train': failed to run: python -m x, exited with 1\n"
    assert workspace.last_error(f"error: an older one\n 50%|##\rerror: no peaks in image 7\n{dvc}") == (
        "error: no peaks in image 7")
    assert workspace.last_error(f"Traceback:\n  raise Error\ntorch.cuda.OutOfMemoryError: 3 GB\n{dvc}") == (
        "torch.cuda.OutOfMemoryError: 3 GB")
    assert workspace.last_error(f"all is well\n{dvc}") == dvc.strip()
    assert workspace.last_error("no mark\n\n") == "no mark"
    assert workspace.last_error("") == "it said nothing"


def test_commands_refuse_what_they_do_not_know(tmp_path):
    preset = workspace.ROOT / "pipelines/presets/shapes.yaml"
    with pytest.raises(UserError, match=r"METHOD=irnte: unknown method; did you mean 'irnet'\?"):
        photos.run("irnte", tmp_path, None, preset, {})
    with pytest.raises(UserError, match="WEIGHTS=absent.pth: no such file"):
        photos.run("irnet", tmp_path, "absent.pth", preset, {})
    with pytest.raises(UserError, match=r"ROWS: there is no cams; did you mean 'cam'\? \(there are: cam, "):
        photos.run("irnet", tmp_path, None, preset, {}, ["components", "cams"])


class _Recorded:
    """In the place of a workspace: remembers what was run, and has figures to read."""

    def __init__(self, folder):
        self.folder, self.runs = folder, []

    def reproduce(self, params, target):
        self.runs.append((params, target))
        return workspace.Reproduced(2.0, ("score",))

    def read(self, path):
        scores = self.runs[-1][0]["irnet"]["synthesis"].get("scores", "propagated")
        return {"metrics/detail/score.json": {"train": {"voc": {"AP50": {"cam": 1.0, "propagated": 3.0}[scores]}}},
                "metrics/detail/evaluate.json": {"voc": {"AP50": 2.0}}}[path]


def test_photos_names_no_folder_and_runs_the_rows_first(tmp_path, monkeypatch):
    recorded = _Recorded(tmp_path)
    monkeypatch.setattr(photos, "Workspace", lambda name: recorded)
    weights = tmp_path / "secret" / "net.pth"
    weights.parent.mkdir()
    weights.touch()
    root = tmp_path / "secret" / "pictures"
    found = photos.run("irnet", root, str(weights), workspace.ROOT / "pipelines/presets/photos.yaml", {"seed": 7},
                       ["components", "cam"])

    assert [(params["irnet"]["synthesis"].get("scores"), target) for params, target in recorded.runs] == [
        ("cam", "score"), (None, "score"), (None, "report")], "the chain comes last: the workspace is left with it"
    for params, _ in recorded.runs:
        assert params["irnet"]["classifier"]["backbone"]["weights"] == str(weights)
        assert params["dataset"]["root"] == str(root)
    assert found["labels_train_cam"] == {"ap50": 1.0}
    assert found["labels_train_components"] == found["labels_train"] == {"ap50": 3.0}
    assert found["detector_val"] == {"ap50": 2.0}
    assert found["all"] == {"seconds": 6.0, "stages": 3}
    settings = found["run"]["settings"]
    assert settings["irnet"]["classifier"]["backbone"]["weights"] == "net.pth"
    assert settings["detector"]["torchvision"]["weights"] == "net.pth"
    assert settings["dataset"]["root"] == "pictures"
    assert settings["seed"] == 7
    assert "secret" not in str(found)


def test_photos_has_labels_from_points_and_the_best_proposals(tmp_path, monkeypatch):
    recorded = _Recorded(tmp_path)
    large = {"size": {"medium_and_large": {"mean_iou": 40.0}}}

    def read(path):
        oracle = recorded.runs[-1][0]["score"].get("oracle")
        score = {"val_points": large, "proposals": {"provider": "hierarchy", "trained_on_masks": 0}}
        return score | ({"oracle": {"objects": {"proposal": large}}} if oracle else {})

    recorded.read = read
    monkeypatch.setattr(photos, "Workspace", lambda name: recorded)
    found = photos.run("wise", tmp_path, None, workspace.ROOT / "pipelines/presets/photos.yaml", {})
    assert found["labels_val_points"] == found["labels_val_points_disc"] == {"mean_iou_per_object": 40.0}
    assert found["oracle_val_oracle"] == {"mean_iou_per_object": 40.0} and "oracle_val" not in found
    assert found["run"]["proposals"] == {"provider": "hierarchy", "trained_on_masks": 0}


PLANS = sorted(path for name in ("ablation.yaml", "photos.yaml")
               for path in workspace.ROOT.glob(f"pipelines/*/{name}") if path.parent.name != "presets")


@pytest.mark.parametrize("path", PLANS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_rows_change_settings_that_exist(tmp_path, path):
    assert path.parent.name in METHODS
    preset = read_yaml(workspace.ROOT / "pipelines/presets" / {"ablation": "shapes.yaml"}.get(path.stem, "photos.yaml"))
    for row in read_yaml(path)["rows"].values():
        params = changed(with_method(preset, path.parent.name), row.get("set", {}))
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        load_params(tmp_path / "params.yaml")


def test_weights_take_the_place_of_file_only():
    params = {"a": {"weights": "FILE"}, "b": [{"weights": "FILE"}], "weights": "imagenet", "name": "FILE"}
    assert photos._with_weights(params, "w.pth") == {
        "a": {"weights": "w.pth"}, "b": [{"weights": "FILE"}], "weights": "imagenet", "name": "FILE"}

