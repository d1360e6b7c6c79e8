from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from stages.evaluation import comparison
from stages.evaluation.comparison import ComparisonSettings, Part, Row, charts, seed_lines, write_page
from stages.evaluation.tables import Cell, Table
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from tests.stages.evaluation.conftest import write_picture
from tests.stages.evaluation.test_report import Page

TRUE = [{"training": 50.0, "true": 4, "false": 1}, {"training": 100.0, "true": 8, "false": 2}]
MORE = [{"training": 50.0, "true": 6, "false": 0}, {"training": 100.0, "true": 9, "false": 4}]


def test_the_mean_of_the_seeds_in_a_band():
    (line,) = seed_lines([TRUE, MORE], "training", "true", "k1")
    assert line.kind == "k1"
    assert line.steps.tolist() == [50.0, 100.0]
    assert line.values.tolist() == [5.0, 8.5]
    assert line.low.tolist() == [4.0, 8.0]
    assert line.high.tolist() == [6.0, 9.0]


def test_one_seed_has_no_band_and_seeds_that_differ_in_their_steps_no_mean():
    (line,) = seed_lines([TRUE, []], "training", "true")
    assert line.values.tolist() == [4.0, 8.0]
    assert line.low is line.high is None
    lines = seed_lines([TRUE, MORE[:1]], "training", "true")
    assert [line.values.tolist() for line in lines] == [[4.0, 8.0], [6.0]]
    assert seed_lines([], "training", "true") == seed_lines([[]], "training", "true") == []


@pytest.mark.parametrize("row", [{"training": 1}, {"training": 1, "true": "many"}, {"training": 1, "true": None}, 3])
def test_a_plot_of_something_else(row):
    with pytest.raises(UserError, match="^moments.json: rows with numbers training and true were expected$"):
        seed_lines([[row]], "training", "true", file="moments.json")


def _part(rows, **changes):
    settings = ComparisonSettings(title="With <and> without", rows=list(rows), **changes)
    figures = Table("Figures", ["ap50"], [(name, "", [Cell("1.0 ± 0.5")]) for name in rows])
    return Part(settings, figures, rows)


PLOT = {"file": "moments.json", "x": "training", "y": ["true", "absent"]}


def test_lines_of_all_rows_in_one_drawing():
    part = _part({"a": Row(plots={"moments.json": [TRUE, MORE]}), "b": Row(plots={"moments.json": [TRUE]}),
                  "c": Row()}, plots=[{**PLOT, "y": ["true"]}])
    ((caption, drawing),) = charts(part)
    assert caption == "true"
    assert re.findall(r'class="(band|line) (k.)"', drawing) == [("band", "k0"), ("line", "k0"), ("line", "k1")]
    assert "a from 5 at training 50 to 8.50 at training 100; b from 4" in drawing.replace("8.5 ", "8.50 ")
    assert charts(_part({"a": Row(), "b": Row()}, plots=[PLOT])) == [], "nobody has a line"


def _gallery(folder: Path, images, pictures):
    """A gallery with panels of the given titles; a picture is named by the seed of its noise."""
    panels = []
    for image in images:
        for number, (title, noise) in enumerate(pictures.items()):
            name = f"{layout.image_key(image)}_{number}.png"
            write_picture(folder / name, noise)
            panels.append({"image_id": image["id"], "title": title, "picture": name})
    panels.append({**panels[0], "split": "val", "title": "of a validation image"})
    write_json(folder / "panels.json", panels)
    return folder


@pytest.fixture
def rows(workspace):
    images = read_json(layout.WEAK["train"])["images"][:3]
    return {"with": Row("guidance: true", gallery=_gallery(workspace / "kept/with", images, {
                "cues": 1, "labels": 2, "refined labels after 10 %": 3})),
            "without": Row("guidance: false", gallery=_gallery(workspace / "kept/without", images, {
                "cues": 1, "labels": 4}))}


def test_the_same_image_of_each_row(workspace, rows):
    path = workspace / "metrics/ablation/irnet.html"
    write_page(path, "irnet", "On <shapes>.", [_part(rows, images=2)], workspace)
    text = path.read_text()
    page = Page(text)
    assert "On &lt;shapes&gt;." in text and "With &lt;and&gt; without" in text and "1.0 ± 0.5" in text
    assert "guidance: false" in text
    assert all((path.parent / image["src"]).is_file() for image in page.images)
    assert all(image["alt"] for image in page.images)
    assert [figure for figure in page.captions] == 2 * ["Image", "Truth", "cues"], "what all rows share stands once"
    key = layout.image_key(read_json(layout.WEAK["train"])["images"][0])
    assert [image["src"] for image in page.images][:6] == [
        f"irnet/{key}_image.jpg", f"irnet/{key}_truth.jpg", f"irnet/with/{key}_0.png",
        f"irnet/with/{key}_1.png", f"irnet/without/{key}_1.png", f"irnet/with/{key}_2.png"]
    assert len(page.images) == 12
    assert text.count(">none</span>") == 2, "one row has no refined labels"
    for row, noise in (("with", 2), ("without", 4)):
        write_picture(workspace / "wanted.png", noise)
        shown = read_rgb(path.parent / f"irnet/{row}/{key}_1.png")
        assert np.array_equal(shown, read_rgb(workspace / "wanted.png"))
    assert "validation" not in text


def test_what_is_the_same_by_chance_stays_with_its_kind(workspace):
    images = read_json(layout.WEAK["train"])["images"][:2]
    galleries = {name: _gallery(workspace / name, images, {"labels": noise}) for name, noise in (("a", 1), ("b", 2))}
    write_picture(galleries["b"] / f"{layout.image_key(images[1])}_0.png", 1)
    part = _part({name: Row(gallery=folder) for name, folder in galleries.items()})
    write_page(workspace / "page.html", "irnet", "", [part], workspace)
    text = (workspace / "page.html").read_text()
    assert Page(text).captions == 2 * ["Image", "Truth"]
    assert text.count('scope="row">labels') == 2


def test_panels_are_chosen_by_how_their_titles_begin(workspace, rows):
    path = workspace / "page.html"
    write_page(path, "irnet", "", [_part(rows, images=1, panels=["refined labels", "cue"])], workspace)
    assert re.findall(r'scope="row">(\w+ ?\w*)', path.read_text()) == ["with", "without", "refined labels"]
    assert Page(path.read_text()).captions == ["Image", "Truth", "cues"]


def test_a_new_page_leaves_nothing_of_the_old_one(workspace, rows):
    path = workspace / "page.html"
    write_page(path, "irnet", "", [_part(rows)], workspace)
    assert (workspace / "page/without").is_dir()
    write_page(path, "irnet", "", [_part({"with": rows["with"], "none": Row()}, images=1)], workspace)
    assert sorted(item.name for item in (workspace / "page").iterdir() if item.is_dir()) == ["with"]
    assert len(list((workspace / "page/with").iterdir())) == 3
    write_page(path, "irnet", "", [_part({"a": Row(), "b": Row()})], workspace)
    assert list((workspace / "page").iterdir()) == []
    assert not [item for item in workspace.iterdir() if item.name.endswith(".tmp")]


def test_without_truth_there_is_no_picture_of_it(workspace, rows):
    truth = read_json(layout.TRUTH["train"])
    write_json(layout.TRUTH["train"], truth | {"annotations": [], "info": {"truth": "none", "reason": "tags only"}})
    write_page(workspace / "page.html", "irnet", "", [_part(rows, images=1)], workspace)
    assert Page((workspace / "page.html").read_text()).captions == ["Image", "cues"]


def test_every_row_has_a_look_of_its_own(workspace):
    names = [f"row{number}" for number in range(comparison.KINDS)]
    write_page(workspace / "page.html", "irnet", "", [_part({name: Row() for name in names})], workspace)
    text = (workspace / "page.html").read_text()
    for place in range(comparison.KINDS):
        assert f".k{place} {{ --own: var(--k{place}); }}" in text
        assert text.count(f"--k{place}: #") == 2, "by day and by night"
    with pytest.raises(ValueError, match="at most 6"):
        ComparisonSettings(title="", rows=[*names, "more"])
