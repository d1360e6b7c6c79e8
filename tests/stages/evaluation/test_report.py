import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from stages.evaluation import comparison, evaluate, gallery, page, score, tables, templates
from stages.evaluation.gallery import choose, read_panels
from stages.evaluation.report import REPORT, main
from stages.labels import rle
from stages.labels.figures import figures_path, write_figures
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from tests.stages.evaluation.conftest import write_params

ROOT = Path(__file__).parents[3]
VOID = {"col", "meta", "img", "br", "line", "circle", "polyline", "polygon"}


class Page(HTMLParser):
    """Checks nesting, and collects texts, pictures and references."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict] = []
        self.references: list[str] = []
        self.captions: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if tag == "img":
            self.images.append(named)
        self.references += [named[key] for key in ("href", "src") if key in named]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "figcaption":
            self.captions.append(data.strip())


def render(params) -> tuple[str, Page]:
    main(params)
    text = (REPORT / "index.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_whole_page(workspace):
    score.main(workspace / "params.yaml")
    evaluate.main(workspace / "params.yaml")
    write_json(layout.METRICS / "irnet_classifier.json", {"val": {"mAP": 0.5}})
    write_figures(figures_path("irnet"), {"pairs_per_image": 12.5})
    text, found = render(workspace / "params.yaml")
    assert all(image["src"].startswith("data:image/jpeg;base64,") and image["alt"] for image in found.images)
    assert all(reference.startswith(("data:", "#")) for reference in found.references)
    anchors = {reference[1:] for reference in found.references if reference.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]+)"', text))
    # Six training images: image, weak, pseudo-label, truth; two panels for two of them; six validation images.
    assert found.captions.count("Pseudo-label") == 6
    assert found.captions.count("Prediction") == 6
    assert found.captions.count("CAM") == found.captions.count("Class boundary") == 2
    assert found.captions.count("Truth") == found.captions.count("Weak label") == found.captions.count("Image") == 12
    for wanted in ("class 0", "mAP", "<svg", "AP by the COCO protocol", "scales", "Retention:", "pairs_per_image",
                   "12.5"):
        assert wanted in text


def test_every_template_is_declared_by_the_page_that_it_is_of():
    shared = set(templates.LOADED_BY_NAME)
    beside = {path.relative_to(ROOT).as_posix() for path in (ROOT / "stages/evaluation").glob("*.j2")}
    assert {*page.LOADED_BY_NAME, *comparison.LOADED_BY_NAME, *shared} == beside
    for name in (*page.LOADED_BY_NAME, *comparison.LOADED_BY_NAME):
        taken = re.findall(r'{% (?:include|from|extends) "([^"]+)"', (ROOT / name).read_text())
        assert {f"stages/evaluation/{item}" for item in taken} == shared


def test_the_head_says_who_made_the_proposals(workspace):
    proposals = {"provider": "SharpMask", "trained_on_masks": 1, "tuned_on_masks": 1, "folder": "data/proposals",
                 "digest": "0"}
    write_figures(figures_path("irnet"), {"count_error": 0.25}, details={"no_points": 2}, proposals=proposals)
    score.main(write_params(workspace, score={"oracle": ["mask"]}))
    text, _ = render(workspace / "params.yaml")
    assert "; proposals by SharpMask, trained on masks.</p>" in text
    assert "by SharpMask; 0: no, 1: yes" in text and "count_error" in text and "no_points" in text
    assert "Oracle mask, objects of val" in text
    assert tables.made_by(proposals | {"trained_on_masks": 0}).endswith(
        "not trained on masks, a few weights chosen with masks")




def test_lvis_figures_have_a_table_and_a_card():
    evaluate = {"available": 1, "lvis": {"AP": 24.1, "APr": 12.0}}
    (table,) = tables.figures({}, evaluate)
    assert table.title == "AP by the LVIS protocol"
    assert [(name, cells[0].text) for name, _, cells in table.rows] == [("AP", "24.1"), ("Rare classes", "12.0")]
    assert ("Detector LVIS AP", "24.1", "validation images, LVIS protocol") in tables.cards({}, evaluate)


def test_same_bytes_again(workspace):
    score.main(workspace / "params.yaml")
    assert render(workspace / "params.yaml")[0] == render(workspace / "params.yaml")[0]


def test_without_truth_numbers_or_panels(workspace):
    for split in ("train", "val"):
        truth = read_json(layout.TRUTH[split])
        write_json(layout.TRUTH[split], truth | {"annotations": [], "info": {"truth": "none", "reason": "tags <only>"}})
    (layout.method_data("irnet") / "gallery/panels.json").unlink()
    score.main(workspace / "params.yaml")
    evaluate.main(workspace / "params.yaml")
    text, found = render(workspace / "params.yaml")
    assert "no numbers, because tags &lt;only&gt;" in text
    assert "Truth" not in found.captions
    assert "Pseudo-label" in found.captions


def test_tags_only_need_no_weak_picture(workspace):
    weak = read_json(layout.WEAK["train"])
    write_json(layout.WEAK["train"], weak | {"annotations": []})
    write_json(layout.WEAK["val"], read_json(layout.WEAK["val"]) | {"annotations": []})
    text, found = render(workspace / "params.yaml")
    assert "Weak label" not in found.captions
    assert 'aria-label="Tags"' in text


def test_weak_labels_count_single_objects(workspace):
    """Crowds and stuff, which boxes and images labelled in full bring along, are drawn and are no objects."""
    image = {"id": 10, "file_name": "train_10.jpg", "tags": []}
    mask = rle.encode(np.ones((60, 80), bool))
    rows = [{"category_id": 40, "segmentation": mask}, {"category_id": 2, "bbox": [1, 2, 30, 20], "iscrowd": 1},
            {"category_id": 2, "bbox": [5, 6, 7, 8], "iscrowd": 0}]
    sources = gallery.Sources({10: rows}, None, None, None, {}, frozenset({2}))
    panels = gallery.entry(image, sources, [], layout.IMAGES, 80, 0.5).panels
    assert [(panel.title, panel.note) for panel in panels] == [("Image", ""), ("Weak label", "1 object")]


def test_gallery_can_be_left_out(workspace):
    text, found = render(write_params(workspace, report={"gallery_images": 0, "validation_images": 0}))
    assert not found.images
    assert 'id="gallery"' not in text


def test_choose_prefers_images_with_panels():
    images = [{"id": number} for number in range(10)]
    assert [image["id"] for image in choose(images, [7, 7, 99, 2], 4)] == [7, 2, 0, 9]
    assert choose([], [], 3) == []
    assert choose(images, [], 0) == []
    assert len(choose(images, [], 50)) == 10


def test_panels_stay_in_their_folder(tmp_path):
    assert read_panels(tmp_path) == []
    write_json(tmp_path / "panels.json", [{"image_id": 1, "title": "CAM", "picture": "../secret.png"}])
    with pytest.raises(UserError, match="lies outside"):
        read_panels(tmp_path)
    write_json(tmp_path / "panels.json", [{"image_id": 1}])
    with pytest.raises(UserError, match="image_id, title and picture"):
        read_panels(tmp_path)


def test_labels_without_a_mask(workspace):
    path = layout.pseudo_labels("irnet")
    content = read_json(path)
    del content["annotations"][0]["segmentation"]
    write_json(path, content)
    with pytest.raises(UserError, match=r"pseudo_labels\.json: does not fit .*(?s:.*)not a compressed RLE"):
        main(workspace / "params.yaml")
    assert not (workspace / "metrics/report").exists()
