from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from pipelines import ablation, workspace
from pipelines.ablation import Ablation, Outcome
from pipelines.ablation_plan import read_plan
from pipelines.workspace import Reproduced
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json

PRESET = workspace.ROOT / "pipelines/presets/shapes.yaml"
PLAN = {
    "minutes": 10, "metrics": {"ap50": "train.voc.AP50", "labels": "train.objects.labels"},
    "rows": {"cam": {"set": {"irnet.synthesis.threshold": 0.5}, "paper": {"ap50": 8.6}},
             "low": {"set": {"irnet.synthesis.threshold": 0.1}}, "whole": {}},
    "compare": [{"title": "Two of them", "rows": ["cam", "low"], "images": 2, "panels": ["labels"],
                 "plots": [{"file": "moments.json", "x": "training", "y": ["true"]}]}]}
SCORES = {"0.5": [10.0, 20.5, 12.25], "0.1": [3.0, 3.0, 3.0], "0.25": [40.0, 41.0, 42.0]}
"""AP50 by threshold and seed."""


class _Fake:
    """In the place of a workspace: what a run leaves, without the run."""

    made: dict[str, _Fake] = {}
    fails: tuple[str, int] | None = None

    def __init__(self, name):
        self.folder, self.runs, self.wanted = ablation.ROOT / ".work/workspaces" / name, [], 0
        self.made[name] = self

    def reproduce(self, params, *targets, log=None):
        threshold, seed = str(params["irnet"]["synthesis"]["threshold"]), params["seed"]
        self.runs.append((threshold, seed, targets, log, params))
        if self.fails == (threshold, seed):
            raise UserError("`dvc repro` failed: error: no peaks")
        if targets == ("score",):
            write_json(self.folder / "metrics/detail/score.json", {"train": {
                "voc": {"AP50": SCORES[threshold][seed]}, "objects": {} if seed == 1 else {"labels": 7}}})
            write_json(self.folder / "metrics/plots/moments.json",
                       [{"training": 50, "true": 1.0 + seed}, {"training": 100, "true": 2.0 + seed}])
            image = {"id": 3, "file_name": "3.jpg", "width": 8, "height": 6, "tags": [1]}
            coco = {"images": [image], "categories": [{"id": 1, "name": "disc", "isthing": 1}], "annotations": []}
            write_json(self.folder / layout.WEAK["train"], coco)
            write_json(self.folder / layout.TRUTH["train"], {**coco, "info": {"truth": "none", "reason": "none"}})
            _picture(self.folder / layout.IMAGES / "3.jpg", 5)
            return Reproduced(100.0 + seed, ("check", "score") if threshold == "0.1" or seed == 2 else ("synthesize",))
        if targets == ("pipelines/irnet/dvc.yaml:illustrate",):
            self.wanted = params["report"]["gallery_images"]
            gallery = self.folder / "data/irnet/gallery"
            _picture(gallery / "a.jpg", 200 if threshold == "0.5" else 20)
            _picture(gallery / "b.jpg", 90)
            write_json(gallery / "panels.json", [
                {"image_id": 3, "split": "train", "title": "labels", "picture": "a.jpg"},
                {"image_id": 3, "split": "train", "title": "heat", "picture": "b.jpg"}])
        return Reproduced(1.0)

    def read(self, path):
        return read_json(self.folder / path)


def _picture(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(path)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone whose irnet has the rows of PLAN, and in which nothing is really run."""
    for name in ("irnet", "wise"):
        folder = tmp_path / "pipelines" / name
        folder.mkdir(parents=True)
        (folder / "dvc.yaml").write_bytes((workspace.ROOT / "pipelines" / name / "dvc.yaml").read_bytes())
        (folder / "ablation.yaml").write_text(yaml.safe_dump(PLAN, sort_keys=False))
    monkeypatch.setattr(ablation, "ROOT", tmp_path)
    monkeypatch.setattr(ablation, "Workspace", _Fake)
    monkeypatch.setattr(_Fake, "made", {})
    return tmp_path


def _main(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["ablation", "irnet", "--preset", str(PRESET), *words])
    monkeypatch.setattr(ablation.signal, "signal", lambda *_: None)
    ablation.main()


def test_means_and_deviations_over_three_seeds(clone, monkeypatch, capsys):
    _main(monkeypatch)
    results = json.loads((clone / "metrics/ablation/irnet.json").read_text())
    assert list(results) == ["cam", "low", "whole", "run"]
    for row, threshold in (("cam", "0.5"), ("low", "0.1"), ("whole", "0.25")):
        assert results[row]["ap50"] == pytest.approx(np.mean(SCORES[threshold]), abs=5e-4)
        assert results[row]["ap50_std"] == pytest.approx(np.std(SCORES[threshold], ddof=1), abs=5e-4)
        assert "labels" not in results[row], "one seed has none"
    assert results["cam"]["paper_ap50"] == 8.6
    assert results["cam"]["seconds"] == 100.5, "seed 2 came out of the cache"
    assert "seconds" not in results["low"], "and so did this row"
    run = results["run"]
    assert (run["seeds"], run["jobs"]) == ([0, 1, 2], 1)
    assert "seed" not in run["settings"] and run["settings"]["method"] == "irnet"
    text = capsys.readouterr().out
    assert "irnet on shapes, 3 rows with seeds 0, 1, 2: about 30 minutes on two cores" in text
    assert "row cam: labels is left out, 2 of 3 seeds have it" in text
    assert "14.2 ± 5.5 (8.6)" in text
    assert "-> metrics/ablation/irnet.html" in text


def test_every_seed_has_a_workspace_and_the_settings_of_its_row(clone):
    Ablation("irnet", PRESET).run()
    assert sorted(_Fake.made) == [f"ablation-irnet-seed{seed}" for seed in range(3)]
    for seed in range(3):
        runs = _Fake.made[f"ablation-irnet-seed{seed}"].runs
        assert [own for _, own, *_ in runs] == [seed] * len(runs)
        assert [threshold for threshold, _, targets, *_ in runs if targets == ("score",)] == ["0.5", "0.1", "0.25"]
        illustrated = [threshold for threshold, _, targets, *_ in runs if "illustrate" in targets[0]]
        assert illustrated == (["0.5", "0.1"] if seed == 0 else []), "pictures are those of the first seed"
    assert _Fake.made["ablation-irnet-seed0"].wanted == 2


def test_one_seed_has_no_deviation(clone, monkeypatch, capsys):
    _main(monkeypatch, "--seeds", "1", "--rows", "whole", "--jobs", "3")
    results = read_json(clone / "metrics/ablation/irnet.json")
    assert results["whole"] == {"ap50": 41.0, "seconds": 101.0}
    assert results["run"]["jobs"] == 1
    text = capsys.readouterr().out
    assert "1 rows with seeds 1: up to 10 minutes" in text
    assert "±" not in text
    assert not (clone / "metrics/ablation/irnet.html").exists(), "the compared rows were not asked for"


def test_seeds_side_by_side(clone, monkeypatch, capsys):
    _main(monkeypatch, "--jobs", "2")
    results = read_json(clone / "metrics/ablation/irnet.json")
    assert results["cam"]["ap50"] == 14.25
    assert not any("seconds" in row for row in results.values())
    assert results["run"]["jobs"] == 2
    text = capsys.readouterr().out
    assert "2 seeds at a time: about 15 minutes where each has two cores, up to 30 where all share two" in text
    assert "no seconds in the file" in text
    assert "row low, seed 1: running; .work/workspaces/ablation-irnet-seed1/logs/low.log" in text
    first, *rest = _Fake.made["ablation-irnet-seed0"].runs
    assert first[2] == ("annotate",)
    for made in _Fake.made.values():
        for threshold, seed, targets, log, _ in made.runs:
            if targets != ("annotate",):
                row = {"0.5": "cam", "0.1": "low", "0.25": "whole"}[threshold]
                assert log == clone / f".work/workspaces/ablation-irnet-seed{seed}/logs/{row}.log"


def test_proposals_are_shared(clone):
    wanting = Ablation("wise", PRESET, jobs=2)
    wanting.workspaces = {seed: _Fake(str(seed)) for seed in wanting.seeds}
    wanting._make_what_seeds_share()
    assert [targets for _, _, targets, *_ in _Fake.made["0"].runs] == [
        ("annotate", "pipelines/proposals/dvc.yaml:propose")]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_failure_names_row_and_seed_and_leaves_the_file_alone(clone, monkeypatch, capsys, jobs):
    before = clone / "metrics/ablation/irnet.json"
    write_json(before, {"run": "older"})
    monkeypatch.setattr(_Fake, "fails", ("0.1", 1))
    with pytest.raises(SystemExit) as end:
        _main(monkeypatch, "--jobs", jobs)
    assert end.value.code == 1
    assert "error: row low, seed 1: `dvc repro` failed: error: no peaks\n" in capsys.readouterr().err
    assert read_json(before) == {"run": "older"}
    assert [path.name for path in before.parent.iterdir()] == ["irnet.json"]
    monkeypatch.setattr(_Fake, "fails", None)
    _main(monkeypatch, "--jobs", jobs)
    assert read_json(before)["low"]["ap50"] == 3.0


def test_the_page_that_compares(clone, monkeypatch):
    _main(monkeypatch)
    text = (clone / "metrics/ablation/irnet.html").read_text()
    assert "Two of them" in text
    assert "irnet.synthesis.threshold: 0.5" in text
    assert "14.2 ± 5.5 (8.6)" in text
    assert text.count('<polygon class="band') == 2
    assert 'src="irnet/cam/a.jpg"' in text and 'src="irnet/low/a.jpg"' in text
    assert "b.jpg" not in text, "a panel that nobody asked for"
    values = [np.asarray(Image.open(clone / f"metrics/ablation/irnet/{row}/a.jpg")).mean() for row in ("cam", "low")]
    assert values == pytest.approx([200, 20], abs=2), "each row has its own pictures, though all are made in one place"


def test_unknown_names_are_refused(clone):
    with pytest.raises(UserError, match=r"METHOD=irnte: no ablation; did you mean 'irnet'\?"):
        Ablation("irnte", PRESET)
    with pytest.raises(UserError, match=r"ROWS: there is no cams; did you mean 'cam'\?"):
        Ablation("irnet", PRESET, rows=["cams"])
    for wrong in ({"seeds": ()}, {"jobs": 0}):
        with pytest.raises(UserError, match="at least one seed and one job"):
            Ablation("irnet", PRESET, **wrong)
    assert Ablation("irnet", PRESET, seeds=(2, 1, 2)).seeds == [2, 1]


def test_a_seed_out_of_the_cache_does_not_shorten_the_seconds(clone):
    plan = read_plan(clone / "pipelines/irnet/ablation.yaml")
    outcomes = [Outcome({"ap50": 1.0}, 300.0), Outcome({"ap50": 2.0}), Outcome({"ap50": 3.0}, 500.0)]
    assert ablation.summarised(plan, "cam", outcomes, True) == {
        "ap50": 2.0, "ap50_std": 1.0, "paper_ap50": 8.6, "seconds": 400.0}
    assert "seconds" not in ablation.summarised(plan, "cam", outcomes, False)


def test_the_table():
    rows = {"cam": {"ap50": 3.21, "ap50_std": 0.16, "paper_ap50": 2.5, "seconds": 4.0},
            "all": {"ap50": 30.0, "ap50_std": 2.0, "recall": 5.0, "recall_std": 0.0}, "run": {}}
    lines = ablation.table(rows).splitlines()
    assert lines[0].split() == ["ap50", "seconds", "recall"]
    assert lines[1].split() == ["cam", "3.2", "±", "0.2", "(2.5)", "4.0", "-"]
    assert lines[2].split() == ["all", "30.0", "±", "2.0", "-", "5.0", "±", "0.0"]
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
