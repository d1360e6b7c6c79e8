"""What `dvc repro` runs again after an edit: the stages whose file in data/code changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from pipelines import code
from pipelines.settings import load_params
from pipelines.workspace import ROOT
from stages.runtime import fingerprint
from stages.runtime.settings import read_yaml

CACHES = (fingerprint._tree, fingerprint._digest_of_file, fingerprint.imported_by, fingerprint.loaded_by_name)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """``clone()`` gives what check writes for a copy of this project; ``clone.edit`` changes a file of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fingerprint, "CODE", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("stages", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy2(ROOT / "dvc.yaml", tmp_path)
    return _Clone(tmp_path)


class _Clone:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before = self.written()

    def written(self, changes=None) -> dict[str, str]:
        params = read_yaml(ROOT / "pipelines/presets/shapes.yaml")
        for path, value in (changes or {}).items():
            place = params
            for key in path.split(".")[:-1]:
                place = place[key]
            place[path.rpartition(".")[2]] = value
        Path("params.yaml").write_text(yaml.safe_dump(params))
        for function in CACHES:
            function.cache_clear()
        shutil.rmtree("data/code", ignore_errors=True)
        code.write_fingerprints(load_params(Path("params.yaml")))
        return {str(path.relative_to("data/code")): path.read_text() for path in Path("data/code").rglob("*")
                if path.is_file()}

    def reruns(self, changes=None) -> set[str]:
        after = self.written(changes)
        assert set(after) == set(self.before)
        return {name for name in after if after[name] != self.before[name]}

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) >= 1, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new, 1))


@pytest.fixture(autouse=True)
def forget():
    yield
    for function in CACHES:
        function.cache_clear()


def test_a_line_of_the_average_precision_measures_again(clone):
    clone.edit("stages/evaluation/average_precision.py", "found / objects", "found / max(objects, 1)")
    assert clone.reruns() == {"score", "evaluate"}


def test_a_default_reruns_the_stages_of_its_section(clone):
    """Defaults count by the values that stages get: of the section, not of the module that defines it."""
    changed = {"irnet.cams": {"scales": [1.0]}}
    before = clone.written(changed)
    after = clone.written({"irnet.cams": {"scales": [1.0], "flip": False}})
    assert {name for name in after if after[name] != before[name]} == {"irnet/infer_cams"}
    assert clone.reruns({"irnet.classifier.dropout": 0.0}) == set(), "a value that is the default changes nothing"


def test_another_supervision_draws_other_images_with_a_budget_only(clone):
    both = {"annotations.kinds": ["tags", "points"]}
    assert "prepare" not in clone.reruns(both)
    assert "prepare" in clone.reruns({"dataset.budget_seconds": 2000.0})
    tags, points, masks = (clone.written({"dataset.budget_seconds": 2000.0, **changes})["prepare"]
                           for changes in ({}, both, {"method": "masks"}))
    assert [text.splitlines()[-1] for text in (tags, points, masks)] == ["images 100", "images 86", "images 8"]
    assert tags.splitlines()[:2] == points.splitlines()[:2]


def test_a_comment_and_a_docstring_rerun_nothing(clone):
    clone.edit("pipelines/irnet/losses.py", "from __future__", "# Why it is so.\nfrom __future__")
    clone.edit("pipelines/irnet/losses.py", '"""IRNet\'s losses', '"""The losses')
    clone.edit("stages/runtime/training.py", '    """Train ``model``', '    """Trains ``model``')
    assert clone.reruns() == set()


def test_a_line_of_a_loss_trains_again_and_nothing_before_it(clone):
    clone.edit("pipelines/irnet/losses.py", "def relation_losses(", "ZERO = 0\n\n\ndef relation_losses(")
    assert clone.reruns() == {"irnet/train_irnet"}


def test_another_number_of_retrainings_keeps_the_first_network(clone):
    assert clone.reruns({"bestie.retraining.iterations": 1}) == {"bestie/retrain"}


def test_another_engine_changes_the_detector_only(clone):
    clone.edit("stages/detector/detectron2_engine.py", "from __future__ import annotations",
               "from __future__ import annotations\n\nONE = 1")
    assert clone.reruns() == set(), "torchvision is the one that runs"
    assert {"train", "predict"} <= clone.reruns({"detector.engine": "detectron2"})


def test_the_page_is_made_again_for_its_template(clone):
    for name, old in (("report.html.j2", "<html"), ("style.css.j2", "margin"), ("tables.html.j2", "<table")):
        clone.edit(f"stages/evaluation/{name}", old, f"{old} ")
        assert clone.reruns() == {"report"}
        clone.before = clone.written()


def test_whatever_is_loaded_by_name_is_declared():
    """A module that imports by a computed name, or reads a file of the project, says which."""
    for path in [*ROOT.glob("stages/**/*.py"), *ROOT.glob("pipelines/*/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        loads = "import_module(" in text or "Path(__file__)" in text or "files(__package__" in text
        if loads and path.name != "fingerprint.py":
            assert fingerprint.loaded_by_name(path), f"{path.relative_to(ROOT)} declares no LOADED_BY_NAME"
