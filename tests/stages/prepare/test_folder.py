"""A folder of images with a table of tags: the whole way to weak labels without any mask."""

import numpy as np
import pytest
from PIL import Image

from stages.runtime.errors import UserError

TABLE = "file_name,tags\nb.png,dog; cat\na.jpg,cat\nsub/c.png,\nd.png,dog;dog\n"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.png", "a.jpg", "sub/c.png", "d.png", "unlisted.png"):
        Image.fromarray(np.full((8, 9, 3), 7, np.uint8)).save(folder / name)
    (folder / "labels.csv").write_text(TABLE)
    return folder


def test_tags(root, desk):
    truth = desk.prepare(kind="folder", root=str(root), split=1, allow_empty_classes=True)
    images = sorted(truth["train"]["images"] + truth["val"]["images"], key=lambda image: image["id"])
    assert [(image["id"], image["file_name"], image["tags"]) for image in images] == [
        (1, "a.jpg", [1]), (2, "b.png", [1, 2]), (3, "d.png", [2]), (4, "sub/c.png", [])]
    assert truth["train"]["categories"] == [{"id": 1, "name": "cat", "isthing": 1},
                                            {"id": 2, "name": "dog", "isthing": 1}]
    assert truth["train"]["info"]["truth"] == "none" and "tags only, no masks" in truth["train"]["info"]["reason"]
    assert not (desk.images / "unlisted.png").exists()
    weak = desk.annotate(kinds=["tags"])
    assert [image["tags"] for image in weak["train"]["images"]] == [image["tags"] for image in truth["train"]["images"]]
    assert weak["train"]["annotations"] == []


def test_second_table_and_exif(root, desk):
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(root / "turned.jpg", exif=tags)
    (root / "val.csv").write_text("tags,file_name\ndog,turned.jpg\n", encoding="utf-8-sig")
    truth = desk.prepare(kind="folder", root=str(root), val="val.csv")
    assert truth["val"]["images"] == [{"id": 5, "file_name": "turned.png", "width": 8, "height": 9, "tags": [2]}]


@pytest.mark.parametrize(("table", "message"), [
    (None, "labels.csv: no such file"),
    ("", "columns file_name,tags were expected, each once, found an empty file"),
    ("name,tags\n", "columns file_name,tags were expected, each once, found name,tags"),
    ("file_name,tags\n", "no image has a tag"),
    ("file_name,tags,tags\na.jpg,cat,dog\n", "columns file_name,tags were expected, each once, found file_name,tags"),
    ('file_name,tags\na.jpg,"cat\nb.png,dog\n', "cannot be read as a UTF-8 CSV table .unexpected end of data"),
    ('file_name,tags\na.jpg,"cat\nb.png,"\n', "line 3: the row of 'a.jpg' runs over several lines; is a closing quote"),
    ('file_name,tags\na.jpg,"cat"s\n', "cannot be read as a UTF-8 CSV table"),
    ("file_name,tags\na.jpg,cat\na.jpg,dog\n", "line 3: a.jpg is listed twice"),
    ("file_name,tags\na.jpg,cat,dog\n", "line 2: more columns than the first line"),
    ("file_name,tags\n,cat\n", "line 2: a file_name was expected"),
    ("file_name,tags\nx.jpg,cat\nb.png,cat\n", r"image 2 \(x\.jpg\): no such file"),
    ("file_name,tags\n../x.jpg,cat\nb.png,cat\n", "leaves the image folder"),
    ("file_name,tags\na.jpg,cat\n", "takes 1 of the 1 images"),
])
def test_bad_tables(root, desk, table, message):
    (root / "labels.csv").unlink() if table is None else (root / "labels.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        desk.prepare(kind="folder", root=str(root), split=1, allow_empty_classes=True)


def test_not_text(root, desk):
    (root / "labels.csv").write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(UserError, match="cannot be read as a UTF-8 CSV"):
        desk.prepare(kind="folder", root=str(root), split=1)
