import pytest

from stages.labels.figures import content_digest, figures_path, read_figures, write_figures
from stages.runtime.errors import UserError
from stages.runtime.files import read_json


def test_there_and_back(tmp_path):
    path = tmp_path / "figures.json"
    write_figures(path, {"classifier_mAP": 81.5, "objects": 3})
    assert read_json(path) == {"figures": {"classifier_mAP": 81.5, "objects": 3}, "measured": {}}
    assert read_figures(path) == {"classifier_mAP": 81.5, "objects": 3}
    assert read_figures(tmp_path / "absent.json") == {}
    assert figures_path("irnet").as_posix() == "data/irnet/figures.json"


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


@pytest.mark.parametrize("text", ["[]", "{}", '{"figures": {"a": "b"}}', '{"figures": [1]}'])
def test_a_strange_file(tmp_path, text):
    path = tmp_path / "figures.json"
    path.write_text(text)
    with pytest.raises(UserError, match='figures.json: at most 3 numbers under "figures"'):
        read_figures(path)
