import json

import pytest

from stages.labels.figures import Figures, content_digest, figures_path, read_figures, write_figures
from stages.runtime.errors import UserError
from stages.runtime.files import read_json

PROPOSALS = {"provider": "SharpMask", "trained_on_masks": 1, "tuned_on_masks": 1, "folder": "data/proposals",
             "digest": "0a"}


def test_there_and_back(tmp_path):
    path = tmp_path / "figures.json"
    write_figures(path, {"classifier_mAP": 81.5, "objects": 3})
    assert read_json(path) == {"figures": {"classifier_mAP": 81.5, "objects": 3}, "measured": {}}
    assert read_figures(path) == Figures({"classifier_mAP": 81.5, "objects": 3})
    assert read_figures(tmp_path / "absent.json") == Figures()
    assert figures_path("irnet").as_posix() == "data/irnet/figures.json"


def test_details_and_proposals(tmp_path):
    path = tmp_path / "figures.json"
    write_figures(path, {"count_error": 1.5}, details={"no_points": 3}, proposals=PROPOSALS)
    found = read_figures(path)
    assert found == Figures({"count_error": 1.5}, {"no_points": 3}, PROPOSALS)
    assert found.all == {"count_error": 1.5, "no_points": 3}
    assert found.of_proposals() == {"provider": "SharpMask", "trained_on_masks": 1, "tuned_on_masks": 1}
    assert Figures().of_proposals() == {}
    with pytest.raises(ValueError, match="2 figures, the headline has room for 1"):
        write_figures(path, {"a": 1, "b": 2}, proposals=PROPOSALS)
    for wrong in ({}, PROPOSALS | {"trained_on_masks": 2}, PROPOSALS | {"trained_on_masks": True},
                  PROPOSALS | {"provider": 1}, PROPOSALS | {"more": 1}):
        with pytest.raises(ValueError, match="of proposals provider, trained_on_masks, .* were expected"):
            write_figures(path, {}, proposals=wrong)
        content = {"figures": {}, "proposals": wrong}
        (tmp_path / "other.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match='under "proposals" provider, trained_on_masks'):
            read_figures(tmp_path / "other.json")
    with pytest.raises(ValueError, match="said twice: a"):
        write_figures(path, {"a": 1}, details={"a": 1})


def test_what_is_measured_changes_the_file(tmp_path):
    path, folder, file = tmp_path / "figures.json", tmp_path / "semantic", tmp_path / "pseudo_labels_val.json"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/a.png").write_bytes(b"1")
    file.write_text("{}")

    def written() -> dict:
        write_figures(path, {}, measured=(folder, file, tmp_path / "points"))
        return read_json(path)["measured"]

    before = written()
    assert list(before) == ["pseudo_labels_val.json", "semantic"], "what is absent is left out"
    assert written() == before
    (folder / "deep/a.png").write_bytes(b"2")
    changed = written()
    assert changed["semantic"] != before["semantic"]
    assert changed["pseudo_labels_val.json"] == before["pseudo_labels_val.json"]


def test_names_and_lengths_count(tmp_path):
    digests = set()
    for number, files in enumerate(({"a": "bc"}, {"ab": "c"}, {"a": "b", "c": ""}, {"a": "", "b": "c"}, {})):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        digests.add(content_digest(folder))
    assert len(digests) == 5


@pytest.mark.parametrize("figures", [{"a": float("nan")}, {"a": True}, {"a": "1"}, dict.fromkeys("abcd", 1.0)])
def test_what_is_no_figure_is_refused(tmp_path, figures):
    with pytest.raises(ValueError, match="figures.json"):
        write_figures(tmp_path / "figures.json", figures)
    assert not (tmp_path / "figures.json").exists()


def test_what_lies_elsewhere_needs_its_name(tmp_path):
    with pytest.raises(ValueError, match="is not in the subpath"):
        write_figures(tmp_path / "irnet/figures.json", {}, measured=[tmp_path])
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/a.png").write_bytes(b"1")
    path = tmp_path / "irnet/figures.json"
    write_figures(path, {}, elsewhere={"semantic": tmp_path / "maps", "points": tmp_path / "absent"})
    assert read_json(path)["measured"] == {"semantic": content_digest(tmp_path / "maps")}


@pytest.mark.parametrize("text", ["[]", "{}", '{"figures": {}, "details": [1]}', '{"figures": {"a": "b"}}',
                                  '{"figures": [1]}'])
def test_a_strange_file(tmp_path, text):
    path = tmp_path / "figures.json"
    path.write_text(text)
    with pytest.raises(UserError, match='figures.json: at most 3 numbers under "figures"'):
        read_figures(path)
