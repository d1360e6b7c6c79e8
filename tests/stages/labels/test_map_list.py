"""The list of label maps that a method has measured."""

from __future__ import annotations

import json

import pytest

from stages.labels.figures import write_figures
from stages.labels.map_list import LabelMap, read_map_list, write_map_list
from stages.runtime.errors import UserError

MAPS = [LabelMap("grabcut", "cues/grabcut"), LabelMap("round 0", "rounds/0/semantic", "rounds/0/panoptic.json", 0),
        LabelMap("instances", panoptic="rounds/1.json", round=1)]


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "maps.json"
    measured = write_map_list(path, MAPS)
    assert read_map_list(path) == MAPS
    assert [place.relative_to(tmp_path).as_posix() for place in measured] == [
        "maps.json", "cues/grabcut", "rounds/0/semantic", "rounds/0/panoptic.json", "rounds/1.json",
        "rounds/0/panoptic", "rounds/1"]
    assert read_map_list(tmp_path / "other.json") == []


def test_score_runs_again_when_a_map_changes(tmp_path):
    picture = tmp_path / "cues/grabcut/000000000001.png"
    picture.parent.mkdir(parents=True)
    picture.write_text("a")
    found = []
    for content in ("a", "b"):
        picture.write_text(content)
        write_figures(tmp_path / "figures.json", {}, write_map_list(tmp_path / "maps.json", MAPS[:1]))
        found.append(json.loads((tmp_path / "figures.json").read_text())["measured"])
    assert {*found[0]} == {"maps.json", "cues/grabcut"} and found[0] != found[1]


@pytest.mark.parametrize(("maps", "message"), [
    ([MAPS[0], MAPS[0]], "a name of its own"), ([LabelMap("", "a")], "a name of its own"),
    ([LabelMap("a")], r"below the list's own folder were expected, found \[\]"),
    ([LabelMap("a", "../b")], "below the list's own folder"), ([LabelMap("a", "/b")], "below the list's own folder"),
    ([LabelMap("a", panoptic="x/../../b.json")], "below the list's own folder"),
])
def test_lists_that_are_wrong(tmp_path, maps, message):
    path = tmp_path / "maps.json"
    with pytest.raises(ValueError, match=message):
        write_map_list(path, maps)
    path.write_text(json.dumps([vars(item) for item in maps]))
    with pytest.raises(UserError, match=f"maps.json: .*{message}.*delete it and run"):
        read_map_list(path)


@pytest.mark.parametrize("content", [{}, ["a"], [{"name": "a", "folder": "b", "rounds": 1}],
                                     [{"name": "a", "folder": "b", "round": "1"}], [{"folder": "b"}]], ids=str)
def test_files_that_hold_something_else(tmp_path, content):
    (tmp_path / "maps.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="delete it and run"):
        read_map_list(tmp_path / "maps.json")
