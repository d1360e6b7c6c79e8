"""Inference over scales, mirror images and tiles, against the whole image and against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segmentation_scenes import settings
from torch import nn
from torch.nn import functional

from stages.cues.backbone import Grid
from stages.segmentation.inference import (
    cells_to_pixels,
    infer_cells,
    infer_semantic,
    most_likely,
    shares,
    spans,
    tile_sides,
)
from stages.segmentation.labels import IGNORE
from stages.segmentation.network import SegmentationNetwork


class Pointwise(nn.Module):
    """Looks at one pixel at a time, and notes how large its views were."""

    grid = Grid(1, 0)

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = 5 * torch.randn(classes, 3, generator=generator)
        self.views: list[tuple[int, int]] = []

    def cells(self, images):
        self.views.append(tuple(images.shape[-2:]))
        return torch.einsum("kc,nchw->nkhw", self.weight, images)


class Strided(nn.Module):
    """A convolution of 5 x 5 pixels every 4: its cells near a cut see padding."""

    grid = Grid(4, 0)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 5, stride=4, padding=2)

    def cells(self, images):
        return 10 * self.convolution(images)


def picture(*size: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("height", "width", "cap"), [
    (1, 1, 4096), (64, 64, 4096), (2048, 1024, 521 * 521), (100, 3000, 4096), (3000, 7, 4096), (333, 517, 9000),
    (65, 65, 4096), (3, 5000, 4096),
])
def test_tiles_cover_and_stay_below_the_cap(height, width, cap):
    rows, columns = tile_sides(height, width, cap)
    assert rows * columns <= cap
    assert rows <= height and columns <= width
    for length, tile in ((height, rows), (width, columns)):
        found = spans(length, tile)
        assert found[0][0] == 0 and found[-1][1] == length
        assert all(end - start == tile for start, end in found)
        assert all(first[1] - second[0] >= tile // 4 for first, second in zip(found, found[1:], strict=False))
        assert all(start % 32 == 0 for start, _ in found[:-1])
        for pixels in (length, length * 2, max(1, length // 3)):
            parts = shares(found, length, pixels)
            assert torch.allclose(parts.sum(0), torch.ones(pixels), atol=1e-5)
            assert (parts >= 0).all()


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.7)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(150, 201), (70, 300), (1, 1), (300, 9)])
def test_tiles_are_exact_for_a_pointwise_network(size, flip, scales):
    image = picture(*size)
    options = {"scales": scales, "flip": flip}
    whole, tiled = Pointwise(), Pointwise()
    expected = infer_semantic(whole, image, max_pixels=10**9, **options)
    found = infer_semantic(tiled, image, max_pixels=4096, **options)
    assert found.shape == (3, *size)
    assert torch.allclose(found.sum(0), torch.ones(size), atol=1e-5)
    # A scaled view is interpolated between the pixels of a tile, which ends where the view goes on.
    assert torch.allclose(found, expected, atol=2e-6)
    assert len(whole.views) == len(scales)
    assert max(rows * columns for rows, columns in tiled.views) <= 4096
    if min(size) > 64:
        assert len(tiled.views) > 4


def test_the_definition_at_the_image_itself():
    image, model = picture(40, 50), Pointwise()
    expected = torch.einsum("kc,chw->khw", model.weight, image.float() / 255).softmax(0)
    for flip in (False, True):
        assert torch.allclose(infer_semantic(model, image, flip=flip), expected, atol=1e-6)


def test_scales_are_put_back_in_place():
    ramp = torch.arange(90, dtype=torch.uint8).expand(3, 60, 90) * 2
    model = Pointwise()
    expected = infer_semantic(model, ramp)
    for scale in (0.5, 2.0, 1.37):
        found = infer_semantic(model, ramp, scales=(scale,), flip=True)
        assert torch.allclose(found[..., 4:-4], expected[..., 4:-4], atol=0.003)


@pytest.mark.parametrize("flip", [False, True])
def test_tiles_equal_the_whole_image_where_the_view_is_small(flip):
    image, model = picture(160, 256), Strided()
    with torch.no_grad():
        whole = infer_semantic(model, image, max_pixels=10**9, flip=flip)
        tiled = infer_semantic(model, image, max_pixels=4096, flip=flip)
    assert whole.std() > 0.05
    assert torch.allclose(tiled, whole, atol=1e-5)


@pytest.mark.parametrize("architecture", ["pspnet", "deeplabv3plus"])
def test_the_network_and_its_mirror_image(architecture):
    torch.manual_seed(0)
    model = SegmentationNetwork(settings(architecture), 2).eval()
    image = picture(45, 61)
    with torch.no_grad():
        straight = model(image[None])[0].softmax(0)
        mirrored = model(image.flip(-1)[None])[0].flip(-1).softmax(0)
        assert torch.allclose(infer_semantic(model, image), straight, atol=1e-5)
        assert torch.allclose(infer_semantic(model, image, flip=True), (straight + mirrored) / 2, atol=1e-5)
        scaled = functional.interpolate(image[None] / 255, size=(90, 122), mode="bilinear")
        back = functional.interpolate(model(scaled), size=(45, 61), mode="bilinear", antialias=False)[0].softmax(0)
        assert torch.allclose(infer_semantic(model, image, scales=(2.0,)), back, atol=0.02)


def test_large_images_in_bounded_views():
    model = Pointwise(2)
    found = infer_semantic(model, picture(1024, 2048), max_pixels=521 * 521)
    assert found.shape == (2, 1024, 2048)
    assert max(rows * columns for rows, columns in model.views) <= 521 * 521
    assert len(model.views) <= 18


def test_chosen_classes_share_the_probability():
    image, model = picture(20, 30), Pointwise(5)
    everything = infer_semantic(model, image)
    chosen = infer_semantic(model, image, classes=[0, 3])
    assert torch.allclose(chosen, everything[[0, 3]] / everything[[0, 3]].sum(0), atol=1e-5)
    names = most_likely(chosen, [0, 3])
    assert names.dtype == np.int16
    assert np.array_equal(names == 3, (everything[3] > everything[0]).numpy())
    assert np.array_equal(most_likely(everything), everything.argmax(0).numpy())
    assert (most_likely(infer_semantic(model, image, classes=[0]), [0]) == 0).all()


def test_what_is_not_sure_is_undecided():
    probabilities = torch.tensor([[[0.5, 0.1, 0.6]], [[0.5, 0.9, 0.4]]])
    assert most_likely(probabilities, [0, 4]).tolist() == [[0, 4, 0]]
    assert most_likely(probabilities, [0, 4], 0.6).tolist() == [[IGNORE, 4, 0]]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(150, 201), (70, 300), (1, 1), (300, 9)])
def test_cells_of_tiles_are_those_of_the_image(size, flip):
    image = picture(*size)
    expected = infer_cells(Pointwise(), image, max_pixels=10**9)
    tiled = Pointwise()
    found = infer_cells(tiled, image, max_pixels=4096, flip=flip)
    assert found.shape == (3, *size)
    assert torch.allclose(found, expected, atol=1e-3), "a pointwise network sees the same in the mirror"
    assert max(rows * columns for rows, columns in tiled.views) <= 4096


@pytest.mark.parametrize("size", [(150, 201), (97, 64), (3, 400)])
def test_cells_at_the_pixels_are_what_the_network_gives(size):
    model = SegmentationNetwork(settings("pspnet"), 2).eval()
    image = picture(*size)
    with torch.no_grad():
        cells = infer_cells(model, image, max_pixels=10**9)
        assert cells.shape == (3, -(-size[0] // 8), -(-size[1] // 8))
        assert torch.allclose(cells_to_pixels(cells, model.grid, size), model(image[None])[0], atol=1e-4)


@pytest.mark.parametrize("scale", [0.5, 0.73, 1.6])
def test_cells_of_a_scaled_view_at_the_pixels(scale):
    model = SegmentationNetwork(settings("pspnet"), 2).eval()
    image = picture(97, 64)
    with torch.no_grad():
        cells = infer_cells(model, image, scale=scale)
        found = cells_to_pixels(cells, model.grid, (97, 64), scale)
        assert found.shape == (3, 97, 64)
        assert torch.allclose(found.softmax(0), infer_semantic(model, image, scales=[scale]), atol=1e-5)


def test_logits_of_tiles_are_averaged():
    """Far from where tiles are cut, a tile sees what the whole image shows; a cut's padding has no say."""
    image, model = picture(180, 260), Strided()
    with torch.no_grad():
        whole, tiled = (infer_cells(model, image, max_pixels=cap) for cap in (10**9, 4096))
    assert torch.allclose(whole, tiled, atol=1e-4)
