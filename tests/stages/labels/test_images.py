"""Every colour mode becomes plain RGB."""

import struct

import numpy as np
import pytest
from PIL import Image

from stages.labels.images import read_header, read_rgb
from stages.runtime.errors import UserError

COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]],
                    [[0, 0, 0], [255, 255, 255], [120, 120, 120]]], np.uint8)


def big(pixels, factor=16):
    """Blocks large enough to survive JPEG."""
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def write(path, mode, **options):
    image = Image.fromarray(big(COLOURS))
    (image.quantize(16) if mode == "P" else image.convert(mode)).save(path, **options)
    return path


def centres(pixels, factor=16):
    return pixels[factor // 2::factor, factor // 2::factor].astype(int)


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGB"), ("a.jpg", "RGB"), ("a.png", "P"), ("a.gif", "P"),
                                            ("a.png", "RGBA"), ("a.jpg", "CMYK"), ("a.tif", "CMYK"), ("a.bmp", "RGB"),
                                            ("a.webp", "RGB")])
def test_colours_stay(tmp_path, name, mode):
    pixels = read_rgb(write(tmp_path / name, mode))
    assert pixels.dtype == np.uint8 and pixels.shape == (32, 48, 3)
    # JPEG's chroma and the conversion to CMYK are exact to a few steps only.
    assert np.abs(centres(pixels) - COLOURS.astype(int)).max() <= 30
    assert read_header(tmp_path / name).plain == (mode == "RGB" and name in ("a.png", "a.jpg"))


@pytest.mark.parametrize(("name", "mode"), [("a.png", "L"), ("a.jpg", "L"), ("a.png", "1"), ("a.png", "LA")])
def test_grey_files(tmp_path, name, mode):
    pixels = read_rgb(write(tmp_path / name, mode))
    assert pixels.shape == (32, 48, 3)
    assert (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
    assert not read_header(tmp_path / name).plain


def test_16_bit_grey(tmp_path):
    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 128, 255]
    assert not read_header(tmp_path / "a.png").plain


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_colour(tmp_path, name):
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / name), big(COLOURS)[..., ::-1].astype(np.uint16) * 257)
    assert np.abs(centres(read_rgb(tmp_path / name)) - COLOURS.astype(int)).max() <= 1
    header = read_header(tmp_path / name)
    assert (header.width, header.height, header.plain) == (48, 32, False)


def test_transparency_is_shown_on_white(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, 2:, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png")[0, :, 0].tolist() == [255, 255, 0, 0]


def test_transparent_colour_of_an_rgb_png(tmp_path):
    Image.fromarray(big(COLOURS)).save(tmp_path / "a.png", transparency=(255, 0, 0))
    assert centres(read_rgb(tmp_path / "a.png"))[0, 0].tolist() == [255, 255, 255]
    assert not read_header(tmp_path / "a.png").plain


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(big(COLOURS)).save(tmp_path / "a.png", exif=exif)
    header = read_header(tmp_path / "a.png")
    assert (header.width, header.height, header.orientation) == (48, 32, orientation)
    assert header.upright_size == ((32, 48) if orientation >= 5 else (48, 32))
    assert (read_rgb(tmp_path / "a.png") == big(COLOURS)).all()
    turned = {1: COLOURS, 2: COLOURS[:, ::-1], 3: COLOURS[::-1, ::-1], 4: COLOURS[::-1],
              5: COLOURS.transpose(1, 0, 2), 6: np.rot90(COLOURS, -1), 7: np.rot90(COLOURS, 2).transpose(1, 0, 2),
              8: np.rot90(COLOURS)}[orientation]
    assert (centres(read_rgb(tmp_path / "a.png", upright=True)) == turned).all()


def test_large(tmp_path):
    Image.new("RGB", (1300, 700), (1, 2, 3)).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png").shape == (700, 1300, 3)


def test_16_bit_colour_tiff_tells_its_size_before_it_is_decoded(tmp_path):
    def tiff(width, height, rows):
        data = np.full((rows, 6, 3), 40_000, "<u2").tobytes()
        tags = [(256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 1), (262, 3, 2), (273, 4, 8), (277, 3, 3),
                (278, 4, height), (279, 4, len(data))]
        entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
        return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + b"\0" * 4

    (tmp_path / "small.tif").write_bytes(tiff(6, 4, 4))
    header = read_header(tmp_path / "small.tif", 100)
    assert (header.width, header.height, header.plain) == (6, 4, False)
    assert read_rgb(tmp_path / "small.tif").shape == (4, 6, 3)
    (tmp_path / "huge.tif").write_bytes(tiff(30_000, 30_000, 4))
    with pytest.raises(UserError, match=r"huge\.tif: 30000 x 30000 pixels, more than dataset\.max_pixels, 2e\+08"):
        read_header(tmp_path / "huge.tif", 2e8)


def test_missing_broken_and_cut_files(tmp_path):
    with pytest.raises(UserError, match="no such image file"):
        read_rgb(tmp_path / "none.png")
    with pytest.raises(UserError, match="is not|cannot be opened"):
        read_rgb(tmp_path)
    (tmp_path / "text.jpg").write_text("no image")
    for read in (read_rgb, read_header):
        with pytest.raises(UserError, match=r"text\.jpg: not an image"):
            read(tmp_path / "text.jpg")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for name in ("cut.jpg", "cut.png"):
        Image.fromarray(noise).save(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-400])
        assert read_header(tmp_path / name).width == 64
        with pytest.raises(UserError, match=rf"{name}: the image is damaged"):
            read_rgb(tmp_path / name)
    Image.new("F", (4, 4)).save(tmp_path / "float.tif")
    with pytest.raises(UserError, match="floating-point"):
        read_rgb(tmp_path / "float.tif")
