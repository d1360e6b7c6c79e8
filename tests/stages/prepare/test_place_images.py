"""Every colour mode and orientation ends as a plain RGB file that fits its labels."""

import numpy as np
import pytest
from PIL import Image

from stages.labels.images import read_header, read_rgb
from stages.runtime.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 255, (10, 12, 3), np.uint8)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def replace(coco_root, name, image, stated=None, **options):
    """Make ``image`` the first training image; ``stated`` is what the JSON says its width and height are."""
    image.save(coco_root.root / "images" / name, **options)
    entry = coco_root.train["images"][0]
    entry["file_name"] = name
    if stated:
        entry["width"], entry["height"] = stated
    coco_root.save()


def run(coco_root, desk):
    entry = desk.prepare(kind="coco", root=str(coco_root.root))["train"]["images"][0]
    path = desk.images / entry["file_name"]
    header = read_header(path)
    assert header.plain and header.orientation == 1
    assert (header.width, header.height) == (entry["width"], entry["height"])
    return entry, read_rgb(path)


@pytest.mark.parametrize(("name", "mode"), [("g.jpg", "L"), ("g.png", "LA"), ("c.jpg", "CMYK"), ("c.tif", "CMYK"),
                                            ("p.png", "P"), ("p.gif", "P"), ("a.png", "RGBA"), ("o.png", "1"),
                                            ("b.bmp", "RGB"), ("sub/w.webp", "RGB")])
def test_colour_modes(coco_root, desk, name, mode):
    (coco_root.root / "images/sub").mkdir()
    replace(coco_root, name, Image.fromarray(PIXELS).convert(mode))
    entry, pixels = run(coco_root, desk)
    assert entry["file_name"] == name.rsplit(".", 1)[0] + ".png"
    assert (pixels == read_rgb(coco_root.root / "images" / name)).all()


def test_16_bit(coco_root, desk):
    replace(coco_root, "d.png", Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257))
    _, pixels = run(coco_root, desk)
    assert (pixels == PIXELS[..., :1]).all()


@pytest.mark.parametrize(("name", "kept"), [("plain.jpg", True), ("plain.png", True)])
def test_plain_files_stay(coco_root, desk, name, kept):
    replace(coco_root, name, Image.fromarray(PIXELS))
    entry, _ = run(coco_root, desk)
    assert entry["file_name"] == name
    assert (desk.images / name).read_bytes() == (coco_root.root / "images" / name).read_bytes()


def test_converted_name_is_taken(coco_root, desk):
    replace(coco_root, "12.jpg", Image.fromarray(PIXELS).convert("L"))
    entry, _ = run(coco_root, desk)
    assert entry["file_name"] == "12.jpg.png" and (desk.images / "12.png").is_file()


def test_labels_of_the_stored_pixels(coco_root, desk):
    replace(coco_root, "r.png", Image.fromarray(PIXELS), exif=exif(6))
    entry, pixels = run(coco_root, desk)
    assert (entry["width"], entry["height"]) == (12, 10) and (pixels == PIXELS).all()


def test_labels_of_the_upright_image(coco_root, desk):
    stored = np.rot90(PIXELS)  # orientation 6 turns it back clockwise
    replace(coco_root, "r.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif(6))
    entry, pixels = run(coco_root, desk)
    assert (entry["width"], entry["height"]) == (12, 10) and (pixels == PIXELS).all()


def test_neither(coco_root, desk):
    replace(coco_root, "r.png", Image.fromarray(PIXELS), stated=(13, 10), exif=exif(6))
    with pytest.raises(UserError, match="the file has 12 x 10 pixels, width and height say 13 x 10"):
        run(coco_root, desk)


def test_one_file_stated_upright_in_one_part_and_as_stored_in_the_other(coco_root, desk):
    Image.fromarray(PIXELS).save(coco_root.root / "images/turned.png", exif=exif(6))
    coco_root.train["images"][0].update(file_name="turned.png", width=12, height=10)
    coco_root.val["images"][0].update(file_name="turned.png", width=10, height=12)
    for annotation in coco_root.val["annotations"][:2]:
        annotation.update(bbox=[1, 1, 3, 3], segmentation=[[1, 1, 4, 1, 4, 4, 1, 4]])
    coco_root.save()
    truth = desk.prepare(kind="coco", root=str(coco_root.root))
    for part, expected in (("train", PIXELS), ("val", np.rot90(PIXELS, -1))):
        entry = truth[part]["images"][0]
        pixels = np.array(Image.open(desk.images / entry["file_name"]))
        assert (entry["height"], entry["width"]) == expected.shape[:2]
        assert (pixels == expected).all()


@pytest.mark.parametrize("others_upright", [False, True])
def test_where_sizes_cannot_tell_the_other_images_do(coco_root, desk, others_upright):
    other = np.ascontiguousarray(np.rot90(PIXELS)) if others_upright else PIXELS
    Image.fromarray(other).save(coco_root.root / "images/12.png", exif=exif(6))
    replace(coco_root, "r.png", Image.fromarray(PIXELS), exif=exif(3))
    _, pixels = run(coco_root, desk)
    assert (pixels == (PIXELS[::-1, ::-1] if others_upright else PIXELS)).all()


def test_without_evidence_the_stored_pixels_count(coco_root, desk):
    replace(coco_root, "r.png", Image.fromarray(PIXELS), exif=exif(3))
    _, pixels = run(coco_root, desk)
    assert (pixels == PIXELS).all()
