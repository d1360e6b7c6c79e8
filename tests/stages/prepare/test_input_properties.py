"""Whatever a user brings: the truth that an independent reading finds, or one sentence and nothing in place."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.labels.panoptic import read_panoptic
from stages.prepare import folder, kitti, voc
from stages.prepare.numbers import read_numbers
from stages.prepare.settings import AnnotationSettings, DatasetSettings, ShapesSettings
from tests.fuzz import data_sets, oracles, samples
from tests.fuzz.strategies import promised, small, spoilt, texts, values

LINES = st.lists(st.lists(st.one_of(texts, st.sampled_from(["file_name", "tags", "a.png", "cat;dog", '"', "1.5",
                                                            "nan"])),
                          max_size=5), max_size=4)
BYTES = st.one_of(st.binary(max_size=40), st.binary(max_size=3).map(lambda data: b"file_name,tags\na.png,cat\n" + data))


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    samples.coco(root)
    return root


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory):
    root = tmp_path_factory.mktemp("panoptic")
    samples.panoptic(root)
    return root


def prepared(root, desk, kind):
    """prepare and annotate in an empty folder; None where they refuse."""
    shutil.rmtree("data", ignore_errors=True)
    settings = {"kind": kind, "root": str(root), "allow_empty_classes": True, "max_pixels": 1e6}

    def run():
        desk.prepare(**settings)
        return desk.annotate(kinds=["tags", "points", "boxes", "extreme_points"])

    found = promised(run)
    assert found is not None or not Path("data/annotations").exists()
    return found


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("masks", [True, False])
def test_coco(coco, desk, part, masks):
    path = coco / f"instances_{part}.json"
    whole = path.read_text()
    content = json.loads(whole)
    tree = content if not masks else {"": [row["segmentation"] for row in content["annotations"]]}

    @small(12)
    @given(spoilt(tree))
    def check(changed):
        if masks and isinstance(changed, dict) and isinstance(changed.get(""), list):
            changed = {**content, "annotations": [{**row, "segmentation": mask} for row, mask in zip(
                content["annotations"], changed[""], strict=False)]}
        path.write_text(json.dumps(changed))
        if prepared(coco, desk, "coco") is not None:
            oracles.coco_kept(coco, desk.folder)
            oracles.annotated(desk.folder, ["tags", "points", "boxes", "extreme_points"])

    try:
        check()
    finally:
        path.write_text(whole)


def test_panoptic(panoptic, desk):
    path = panoptic / "panoptic_train.json"
    whole = path.read_text()

    @small(60)
    @given(spoilt(json.loads(whole)))
    def check(changed):
        path.write_text(json.dumps(changed))
        content = promised(lambda: read_panoptic(path))
        if content is not None and json.dumps(content) != whole and prepared(panoptic, desk, "panoptic") is not None:
            data_sets._check_panoptic(desk.folder.parent / "case", {"kinds": ["tags"]})

    (desk.folder.parent / "case").mkdir()
    (desk.folder.parent / "case/user").symlink_to(panoptic)
    (desk.folder.parent / "case/desk").symlink_to(desk.folder)
    try:
        check()
    finally:
        path.write_text(whole)


@small(80)
@given(st.one_of(BYTES, LINES.map(lambda rows: "\n".join(",".join(row) for row in [["file_name", "tags"], *rows])
                                  .encode("utf-8", "replace"))))
def test_tables_of_tags(tmp_path, content):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    table = promised(lambda: folder.read_table(path))
    if table is not None:
        rows = [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) if row][1:]
        assert len(table) == len(rows)
        for row in rows:
            assert table[row[0].strip()] == sorted({tag.strip() for tag in (row[1] if len(row) > 1 else "").split(";")}
                                                   - {""})


@small(60)
@given(st.one_of(st.binary(max_size=30), LINES.map(lambda rows: "\n".join(" ".join(row) for row in rows).encode(
    "utf-8", "replace"))))
def test_lists_and_tables_of_boxes(tmp_path, content):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    names = promised(lambda: voc.read_list(path))
    assert names is None or names == [
        line.split()[0] for line in content.decode("utf-8-sig").splitlines() if line.split()]
    promised(lambda: kitti._listed(path, tmp_path))
    boxes = promised(lambda: kitti.read_boxes(path))
    assert boxes is None or len(boxes) <= len(content.decode().splitlines())


@small(80)
@given(st.data())
def test_pictures_of_numbers(tmp_path, data):
    samples.kitti(tmp_path / "kitti") if not (tmp_path / "kitti").exists() else None
    whole = (tmp_path / "kitti/semantics/instance/000000_10.png").read_bytes()
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "map.png"
    path.write_bytes(content)
    found = promised(lambda: read_numbers(str(path), ("I",), "a 16-bit PNG", (12, 8)))
    assert found is None or found.shape == (8, 12)


@small(80)
@given(st.sampled_from(sorted(DatasetSettings.model_fields)), values)
def test_settings_are_values_or_errors(key, value):
    try:
        found = DatasetSettings.model_validate({"kind": "coco", key: value})
    except ValueError as error:
        assert "RecursionError" not in str(error)
    else:
        kept = getattr(found, key)
        if isinstance(kept, (tuple, list)):
            assert len(kept) == len(value)
        elif not isinstance(kept, (bool, ShapesSettings)):
            assert kept == value or float(kept) == float(value)


@small(60)
@given(st.sampled_from(sorted(AnnotationSettings.model_fields)), values)
def test_settings_of_labels(key, value):
    try:
        AnnotationSettings.model_validate({key: value})
    except ValueError as error:
        assert str(error)
