"""Attention maps: their relation to the score, flips, scales, the cap on views, and odd input."""

from __future__ import annotations

import pytest
import torch

from stages.cues.backbone import Grid, grid_of
from stages.cues.cams import attention_maps_of_images, class_attention_maps
from stages.cues.classifier import Classifier
from stages.cues.settings import BackboneSettings, CamSettings

NARROW = BackboneSettings(name="resnet10t", weights="none", stride=8,
                          arguments={"channels": [8, 8, 16, 16], "stem_width": 8})


@pytest.fixture(scope="module")
def network() -> Classifier:
    torch.manual_seed(0)
    model = Classifier(NARROW, 4, dropout=0.3, scale=3.0).eval()
    torch.nn.init.normal_(model.head.weight, std=1.0)
    return model


class Body:
    """A cell is the mean of the pixels around its centre: of stride x stride of them, or of one more where centred."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        stride = int(self.grid.stride)
        if self.grid == grid_of(stride):
            return torch.nn.functional.avg_pool2d(images, stride, ceil_mode=True)
        return torch.nn.functional.avg_pool2d(images, stride + 1, stride, stride // 2, count_include_pad=False)


class Redness(torch.nn.Module):
    """A hand-made network whose classes are red and green; its grid is that of areas, or of a ResNet (origin 0)."""

    def __init__(self, stride: int, origin: float | None = None) -> None:
        super().__init__()
        self.scale = 1.0
        self.backbone = Body(grid_of(stride) if origin is None else Grid(stride, origin))
        self.head = torch.nn.Conv2d(3, 2, 1, bias=False).requires_grad_(False)
        self.head.weight.copy_(torch.tensor([[1.0, -1, -1], [-1, 1, -1]]).view(2, 3, 1, 1))


def redness(stride: int, origin: float | None = None) -> Redness:
    return Redness(stride, origin).eval()


def picture(height: int, width: int, row: int, column: int, radius: int = 8) -> torch.Tensor:
    """A red square around a pixel on black."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[0, max(0, row - radius):row + radius + 1, max(0, column - radius):column + radius + 1] = 255
    return image


def centre(cam: torch.Tensor, grid: Grid) -> tuple[float, float]:
    rows, columns = cam.sum(1), cam.sum(0)
    pixels = [grid.origin + grid.stride * torch.arange(len(line)) for line in (rows, columns)]
    return float((rows * pixels[0]).sum() / rows.sum()), float((columns * pixels[1]).sum() / columns.sum())


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (61, 97), (5, 3), (1, 1), (33, 530)])
def test_maps_are_normalised(network, size, flip):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    with torch.no_grad():
        maps, probabilities = class_attention_maps(network, image, [2, 0, 3], scales=(0.5, 1.0, 1.5), flip=flip,
                                                   grid=grid_of(4))
    assert maps.shape == (3, -(-size[0] // 4), -(-size[1] // 4))
    assert maps.dtype == torch.float32
    assert maps.min() >= 0
    for peak in maps.amax(dim=(1, 2)):
        assert peak == 0 or peak == pytest.approx(1.0)
    assert probabilities.shape == (4,)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


def test_single_view_is_equation_1():
    model = redness(8)
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)
    image[1:, :, 20:] = 30
    with torch.no_grad():
        maps, probabilities = class_attention_maps(model, image, [0], scales=(1.0,), flip=False, grid=grid_of(8))
        scores = model.head(model.backbone(image[None] / 255))[0]
    wanted = scores[0].clamp(min=0)
    assert torch.allclose(maps[0], wanted / wanted.max(), atol=1e-6)
    assert torch.allclose(probabilities, scores.mean(dim=(1, 2)).sigmoid(), atol=1e-6)


def test_zero_map_stays_zero():
    maps, _ = class_attention_maps(redness(8), picture(64, 64, 30, 30), [1, 0], scales=(0.5, 1.0), flip=True,
                                   grid=grid_of(4))
    assert maps[0].abs().max() == 0
    assert maps[1].max() == pytest.approx(1.0)


def test_no_classes(network):
    with torch.no_grad():
        maps, probabilities = class_attention_maps(network, picture(40, 30, 5, 5), [], scales=(1.0, 2.0), flip=True,
                                                   grid=grid_of(4))
    assert maps.shape == (0, 10, 8)
    assert probabilities.shape == (4,)


@pytest.mark.parametrize("origin", [None, 0.0])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (0.5,), (1.5,), (2.0,), (0.5, 1.0, 1.5, 2.0)])
def test_a_blob_stays_where_it_is(origin, flip, scales):
    # 131 x 203 is no multiple of anything; 0.5 and 1.5 times it are rounded.
    for row, column in ((65, 101), (40, 150), (90, 33)):
        maps, _ = class_attention_maps(redness(8, origin), picture(131, 203, row, column), [0], scales=scales,
                                       flip=flip, grid=grid_of(2))
        found = centre(maps[0], grid_of(2))
        # A 17 px square between cells of 8 to 16 px: its centre of mass is met to a fraction of a cell.
        assert found == pytest.approx((row, column), abs=1.3)


def test_blob_on_many_places_has_no_bias():
    offsets = []
    for column in range(60, 76):
        maps, _ = class_attention_maps(redness(8, 0.0), picture(120, 160, 60, column), [0], scales=(0.5, 1.0, 2.0),
                                       flip=True, grid=grid_of(2))
        offsets.append(centre(maps[0], grid_of(2))[1] - column)
    assert sum(offsets) / len(offsets) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("width", [96, 97, 130])
def test_mirrored_image_gives_mirrored_maps_without_flip_averaging(width):
    # A grid that is symmetric in the image: cells of one pixel.
    model, image = redness(1), torch.randint(0, 256, (3, 20, width), dtype=torch.uint8)
    for flip in (False, True):
        first, _ = class_attention_maps(model, image, [0, 1], scales=(1.0, 0.5), flip=flip, grid=grid_of(1))
        second, _ = class_attention_maps(model, image.flip(-1), [0, 1], scales=(1.0, 0.5), flip=flip, grid=grid_of(1))
        assert torch.allclose(first, second.flip(-1), atol=1e-5)


@pytest.mark.parametrize("width", [96, 100])
def test_flip_averaging_is_equivariant(network, width):
    image = torch.randint(0, 256, (3, 64, width), dtype=torch.uint8)
    image[:, 20:40, 10:40] = 250
    with torch.no_grad():
        first, p = class_attention_maps(network, image, [0, 1, 2], scales=(1.0, 1.5), flip=True, grid=grid_of(4))
        second, q = class_attention_maps(network, image.flip(-1), [0, 1, 2], scales=(1.0, 1.5), flip=True,
                                         grid=grid_of(4))
    assert torch.allclose(p, q, atol=1e-5)
    assert torch.allclose(first, second.flip(-1), atol=1e-4)


def test_larger_than_the_crop(network):
    with torch.no_grad():
        maps, _ = class_attention_maps(network, picture(300, 700, 100, 600), [0], scales=(1.0,), flip=True,
                                       grid=grid_of(4))
    assert maps.shape == (1, 75, 175)


class Recorded(torch.nn.Module):
    """A backbone that notes the sizes of what it is shown."""

    def __init__(self, body) -> None:
        super().__init__()
        self.body, self.grid, self.sizes = body, body.grid, []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(images.shape[-2:]))
        return self.body(images)


def test_no_view_is_larger_than_the_cap():
    model = redness(8)
    model.backbone = Recorded(model.backbone)
    image = picture(120, 200, 60, 101)
    maps, probabilities = class_attention_maps(model, image, [0], scales=(0.5, 1.0, 1.5, 2.0), flip=True,
                                               grid=grid_of(4), max_pixels=120 * 200 * 1.21)
    # 1.5 and 2 both become 1.1: one view that counts twice.
    assert model.backbone.sizes == [(60, 100), (120, 200), (132, 220)]
    assert maps.shape == (1, 30, 50)
    assert centre(maps[0], grid_of(4)) == pytest.approx((60, 101), abs=1.3)
    again, same = class_attention_maps(redness(8), image, [0], scales=(0.5, 1.0, 1.1, 1.1), flip=True, grid=grid_of(4))
    assert torch.allclose(maps, again, atol=1e-5)
    assert torch.allclose(probabilities, same, atol=1e-6)


def test_photographs_fit_by_default():
    model = redness(16)
    model.backbone = Recorded(model.backbone)
    image = torch.zeros(3, 3000, 4000, dtype=torch.uint8)
    class_attention_maps(model, image, [0], scales=(1.0, 2.0), flip=False, grid=grid_of(16),
                         max_pixels=CamSettings().max_pixels)
    (height, width), = model.backbone.sizes
    assert 3.9e6 < height * width <= 4e6
    assert height / width == pytest.approx(0.75, abs=0.001)


@pytest.mark.parametrize("flip", [False, True])
def test_several_images_are_looked_at_as_each_alone(network, flip):
    images = torch.randint(0, 256, (3, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    classes: list[list[int]] = [[2], [], [0, 3, 1]]
    chosen = {"scales": (0.5, 1.0, 1.5), "flip": flip, "grid": grid_of(4)}
    with torch.no_grad():
        maps, probabilities = attention_maps_of_images(network, images, classes, **chosen)
        for number, image in enumerate(images):
            wanted, scores = class_attention_maps(network, image, classes[number], **chosen)
            assert maps[number].shape == wanted.shape
            assert torch.allclose(maps[number], wanted, atol=1e-4)
            assert torch.allclose(probabilities[number], scores, atol=1e-5)
