from __future__ import annotations

import pytest
import yaml

from pipelines.ablation_plan import read_plan
from pipelines.workspace import ROOT
from stages.runtime.errors import UserError

PLAN = {"minutes": 3, "metrics": {"ap50": "train.voc.AP50"}, "rows": {
    "cam": {"set": {"irnet.synthesis.scores": "cam"}, "paper": {"ap50": 8.6}}, "whole": {}}}


def _read(folder, changes):
    (folder / "ablation.yaml").write_text(yaml.safe_dump({**PLAN, **changes}))
    return read_plan(folder / "ablation.yaml")


@pytest.mark.parametrize("path", sorted(ROOT.glob("pipelines/*/ablation.yaml")), ids=lambda path: path.parent.name)
def test_the_plans_of_the_methods(path):
    plan = read_plan(path)
    assert plan.minutes > 0
    assert any(row.paper for row in plan.rows.values())


def test_what_may_be_left_out(tmp_path):
    plan = _read(tmp_path, {})
    assert plan.compare == []
    assert plan.rows["whole"].set == plan.rows["whole"].paper == {}


@pytest.mark.parametrize(("changes", "message"), [
    ({"metric": {}}, r"metric: unknown section; did you mean 'metrics'\?"),
    ({"rows": {"cam": {"sets": {}}}}, r"rows\.cam\.sets: unknown key; did you mean 'set'\?"),
    ({"rows": {"cam": {"paper": {"ap5": 1}}}}, r"rows\.cam\.paper: there is no ap5; did you mean 'ap50'\?"),
    ({"compare": [{"title": "t", "rows": ["cam", "hole"]}]}, r"compare\.0\.rows: there is no hole; did you mean"),
    ({"compare": [{"title": "t", "rows": ["cam"]}]}, r"compare\.0\.rows: list should have at least 2"),
    ({"compare": [{"title": "t", "rows": ["cam", "whole"], "plots": [{"file": "m.json", "x": "t"}]}]},
     r"compare\.0\.plots\.0\.y: missing"),
])
def test_mistakes_are_sentences(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        _read(tmp_path, changes)
