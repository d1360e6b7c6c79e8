"""IRNet's structure, sizes, frozen backbone and geometry; flip averaging of its fields."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.irnet.fields import fields, mean_displacement
from pipelines.irnet.learning import Warmup, dead_axes
from pipelines.irnet.losses import relation_losses
from pipelines.irnet.network import IRNet
from pipelines.irnet.settings import NetworkSettings
from stages.cues.backbone import Backbone, grid_of
from stages.cues.settings import BackboneSettings

NARROW = {"name": "resnet10t", "weights": "none", "arguments": {"channels": [8, 8, 16, 24], "stem_width": 8}}


def build(stride: int = 16, grid: int = 4, **settings) -> IRNet:
    torch.manual_seed(0)
    backbone = Backbone(BackboneSettings(**NARROW, stride=stride))
    for module in backbone.modules():  # as after some training: no batch norm that passes everything through
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    chosen = NetworkSettings(**{"channels": 16, "boundary_channels": 4, **settings})
    return IRNet(backbone, chosen, grid_of(grid)).eval()


@pytest.mark.parametrize("grid", [2, 4])
@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("size", [(131, 97), (64, 48), (17, 5), (3, 2), (1, 1), (40, 530)])
def test_output_sizes(size, stride, grid):
    with torch.no_grad():
        displacement, boundary = build(stride, grid)(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
    shape = tuple(-(-side // grid) for side in size)
    assert displacement.shape == (2, 2, *shape)
    assert boundary.shape == (2, *shape)
    assert torch.isfinite(displacement).all()
    assert torch.isfinite(boundary).all()


def convolutions(model: IRNet) -> dict[str, tuple[nn.Conv2d, list[nn.Module]]]:
    """Own convolutions by name, with the modules that follow in their sequence."""
    found = {}
    for name, module in model.named_modules():
        if name.startswith("backbone"):
            continue
        if isinstance(module, nn.Sequential):
            children = list(module.children())
            for index, child in enumerate(children):
                if isinstance(child, nn.Conv2d):
                    found[f"{name}.{index}"] = (child, children[index + 1:])
    found["edge_last"] = (model.edge_last, [])
    return found


def test_structure_of_section_4_1():
    model = build(channels=16)
    convs = convolutions(model)
    own = [module for name, module in model.named_modules()
           if isinstance(module, nn.Conv2d) and not name.startswith("backbone")]
    assert {id(conv) for conv, _ in convs.values()} == {id(conv) for conv in own}
    assert all(conv.kernel_size == (1, 1) and conv.stride == (1, 1) for conv in own)
    last = [name for name, (_, after) in convs.items() if not after]
    assert sorted(last) == ["displacement.0.decode.2", "edge_last"]
    for name, (_, after) in convs.items():
        if name not in last:
            assert isinstance(after[0], nn.GroupNorm), name
            assert isinstance(after[1], nn.ReLU), name
    # Channels are reduced only where there are more than the widest; five levels; three layers decode.
    assert model.backbone.channels == [16, 8, 8, 16, 24]
    branch, = model.displacement
    assert [layer[0].out_channels for layer in branch.reduce] == [16, 8, 8, 16, 16]
    assert len(branch.merge) == 4
    assert [layer[0].in_channels for layer in branch.merge] == [16 + 8, 8 + 8, 8 + 16, 16 + 16]
    assert len([1 for name in convs if ".decode" in name]) == 3
    assert branch.decode[-1].out_channels == 2
    assert model.edge_last.in_channels == 5 * 4
    assert model.edge_last.out_channels == 1


def test_defaults_are_the_papers():
    settings = NetworkSettings()
    assert settings.channels == 256
    assert (settings.radius, settings.displacement_factor, settings.learning_rate) == (10, 10, 0.1)
    assert (settings.optimizer, settings.schedule) == ("sgd", "polynomial")


@pytest.mark.parametrize("groups", [1, 3, 16])
def test_any_number_of_groups(groups):
    for module in build(channels=24, groups=groups).modules():
        if isinstance(module, nn.GroupNorm):
            assert module.num_channels % module.num_groups == 0
            assert module.num_groups <= groups


def test_groups_have_some_channels_each():
    model = build(channels=24, boundary_channels=32, group_channels=8)
    groups = {module.num_channels: module.num_groups for module in model.modules() if isinstance(module, nn.GroupNorm)}
    assert groups == {8: 1, 16: 2, 24: 3, 32: 4}


def test_the_backbone_is_frozen():
    model = build()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    assert not any(module.training for module in model.backbone.modules())
    assert all(not value.requires_grad for value in model.backbone.parameters())
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    labels = torch.randint(0, 3, (2, 12, 16), dtype=torch.uint8)
    displacement, boundary = model(torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8))
    torch.stack(list(relation_losses(displacement, boundary, labels, 4.0).values())).sum().backward()
    assert all(value.grad is None for value in model.backbone.parameters())
    trained = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in trained.values()), \
        [name for name, gradient in trained.items() if gradient is None or gradient.abs().max() == 0]
    optimizer.step()
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in state.items() if name.startswith("backbone."))
    assert not torch.equal(state["displacement.0.decode.2.weight"], after["displacement.0.decode.2.weight"])
    assert torch.equal(after["displacement_mean"], torch.zeros(2))


def test_separate_axes_share_nothing():
    model = build(separate_axes=True)
    displacement, _ = model(torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8))
    assert displacement.shape == (2, 2, 12, 16)
    for axis, branch in enumerate(model.displacement):
        displacement[:, axis].square().sum().backward(retain_graph=True)
        moved = [any(bool(value.grad.any()) for value in other.parameters()) for other in model.displacement]
        assert moved == [other is branch for other in model.displacement]
        model.zero_grad(set_to_none=True)


def test_the_background_counts_by_and_by():
    warmup = Warmup(8)
    factors = []
    for step in range(12):
        factors.append(float(warmup()))
        warmup.tick(step + 1)
    assert factors == [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 1, 1, 1]
    resumed = Warmup(16)
    resumed.load_state_dict(warmup.state_dict())
    assert float(resumed()) == 0.75
    assert float(Warmup(0)()) == 1


def test_an_axis_that_learnt_nothing_is_named():
    assert dead_axes([3.2, 3.4], [4.0, 4.1]) == []
    line, = dead_axes([3.2, 4.1], [4.0, 4.1])
    assert "nothing along x" in line and "4.10" in line
    assert ["along y" in line for line in dead_axes([4.2, 4.3], [4.0, 4.1])] == [True, False]
    assert dead_axes([0.0, 0.0], [0.0, 0.0]) == [], "no confident foreground, no verdict"


def test_the_mean_is_subtracted():
    model = build()
    image = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8)
    with torch.no_grad():
        before, edge = model(image)
        model.displacement_mean += torch.tensor([2.0, -3.0])
        after, same = model(image)
    assert torch.allclose(before[0, 0] - after[0, 0], torch.full((10, 14), 2.0), atol=1e-5)
    assert torch.allclose(before[0, 1] - after[0, 1], torch.full((10, 14), -3.0), atol=1e-5)
    assert torch.equal(edge, same)


def test_training_can_reach_what_it_should():
    """A few steps on one image halve the loss: gradients go where they should."""
    model = build(8, 4)
    torch.manual_seed(1)
    image = torch.randint(0, 80, (1, 3, 64, 64), dtype=torch.uint8)
    image[:, 0, 16:48, 16:48] += 170
    labels = torch.zeros(1, 16, 16, dtype=torch.uint8)
    labels[:, 4:12, 4:12] = 1
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.05, momentum=0.9)
    losses = []
    for _ in range(40):
        found = relation_losses(*model(image), labels, 4.0)
        losses.append({name: value.item() for name, value in found.items()})
        total = 10 * found["displacement_foreground"] + 10 * found["displacement_background"] + found["boundary"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert losses[-1]["boundary"] < 0.5 * losses[0]["boundary"]
    assert losses[-1]["displacement_foreground"] < 0.7 * losses[0]["displacement_foreground"]


@pytest.mark.parametrize("stride", [8, 16])
def test_what_moves_in_the_image_moves_in_the_fields(stride):
    # Group norms see the whole map, so a scene moves inside an image that holds the same things.
    model = build(stride)
    scene = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8)

    def at(row: int, column: int):
        image = torch.full((1, 3, 288, 320), 120, dtype=torch.uint8)
        image[0, :, row:row + 48, column:column + 48] = scene
        with torch.no_grad():
            return model(image)

    (first, edge), (second, moved) = at(112, 112), at(128, 144)
    inside = (slice(None), slice(24, 44), slice(24, 44))  # away from the image's border, around the scene
    there = (slice(None), slice(28, 48), slice(32, 52))
    assert torch.allclose(edge[inside], moved[there], atol=2e-3)
    assert torch.allclose(first[0][inside], second[0][there], atol=2e-3 * first.abs().max().item())


@pytest.mark.parametrize("width", [64, 68, 66, 65])
def test_flip_averaging_is_equivariant(width):
    model = build(16, 4)
    with torch.no_grad():
        model.displacement_mean += torch.tensor([0.4, 0.7])
    image = torch.randint(0, 256, (3, 48, width), dtype=torch.uint8)
    with torch.no_grad():
        displacement, boundary = fields(model, image, True)
        mirrored, edge = fields(model, image.flip(-1), True)
        single, _ = fields(model, image, False)
    assert displacement.shape == (2, 12, -(-width // 4))
    assert boundary.shape == (12, -(-width // 4))
    assert not torch.allclose(single, displacement, atol=1e-3)
    assert ((boundary >= 0) & (boundary <= 1)).all()
    if width % 4 == 0:  # else the cells of the mirrored image lie elsewhere
        assert torch.allclose(displacement[0], mirrored[0].flip(-1), atol=1e-4)
        assert torch.allclose(displacement[1], -mirrored[1].flip(-1), atol=1e-4)
        assert torch.allclose(boundary, edge.flip(-1), atol=1e-5)


def test_the_boundary_alone_is_averaged_over_the_flip():
    model = build()
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)
    with torch.no_grad():
        (plain, single), (both, mean) = (fields(model, image, flip) for flip in (False, True))
        displacement, boundary = fields(model, image, True, flip_displacement=False)
    assert torch.equal(displacement, plain)
    assert torch.equal(boundary, mean)
    assert not torch.allclose(both, plain, atol=1e-3)
    assert not torch.allclose(single, mean, atol=1e-4)


class Positions(nn.Module):
    """A hand-made IRNet: the boundary is how far right a cell lies, the displacement points to column 30."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid_of(grid)

    def forward(self, images):
        step = int(self.grid.stride)
        value = torch.nn.functional.avg_pool2d(images.float(), step, ceil_mode=True)[:, 0]
        field = torch.stack([torch.zeros_like(value), value], dim=1)
        return field, (value / 256).logit()


@pytest.mark.parametrize("width", [60, 61, 62, 63])
def test_mirrored_cells_are_read_where_they_lie(width):
    # A ramp in the image: wherever the cells of the mirrored image lie, the average must be the ramp again.
    ramp = (2 * torch.arange(width)).to(torch.uint8).expand(3, 8, width)
    _, boundary = fields(Positions(4), ramp, True)
    single = Positions(4)(ramp[None])[1][0].sigmoid()
    assert torch.allclose(boundary[:, 1:-1], single[:, 1:-1], atol=1e-5)
    assert single[0, -2] - single[0, 1] > 0.3
    displacement, _ = fields(Positions(4), ramp, True)
    assert displacement[1, :, 1:-1].abs().max() < 1e-3  # a field that does not know left from right has no dx
    assert math.isclose(float(displacement[0].abs().max()), 0)


# --- images with more pixels than the network is shown at once ----------------------------------------------------


class Targets(nn.Module):
    """A hand-made IRNet of images whose pixels say where they lie: every cell points at a quarter of the image's
    height and width (in the image's own cells), and the boundary is how far down it lies."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid, self.sizes = grid_of(grid), []

    def forward(self, images):
        step, (height, width) = int(self.grid.stride), images.shape[-2:]
        self.sizes.append((height, width))
        rows, columns = -(-height // step), -(-width // step)
        y, x = torch.meshgrid(torch.arange(rows) * 1.0, torch.arange(columns) * 1.0, indexing="ij")
        target = [((side - 1) / 4 - self.grid.origin) / step for side in (height, width)]
        field = torch.stack([target[0] - y, target[1] - x])[None]
        return field, ((self.grid.origin + step * y + 0.5) / height).clamp(0.001, 0.999).logit()[None]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(240, 320), (241, 323)])
def test_a_capped_view_gives_the_fields_of_the_image(size, flip):
    image = torch.zeros(3, *size, dtype=torch.uint8)
    model = Targets(4)
    wanted, edge = fields(Targets(4), image, False)
    found, boundary = fields(model, image, flip, max_pixels=size[0] * size[1] / 4)
    assert all(height * width <= size[0] * size[1] / 4 for height, width in model.sizes)
    assert found.shape == wanted.shape
    assert boundary.shape == edge.shape
    inside = (slice(2, -2), slice(2, -2))
    assert torch.allclose(found[0][inside], wanted[0][inside], atol=0.3)  # lengths are the image's: up to 45 cells
    assert torch.allclose(boundary[inside], edge[inside], atol=0.01)
    if flip:  # one of the two points a quarter from the left, the other from the right: the middle on average
        middle = ((size[1] - 1) / 2 - 1.5) / 4 - torch.arange(wanted.shape[2])
        assert torch.allclose(found[1][inside], middle.expand_as(found[1])[inside], atol=0.6)
    else:
        assert torch.allclose(found[1][inside], wanted[1][inside], atol=0.3)


def test_what_fits_is_looked_at_as_it_is():
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)
    model = build()
    with torch.no_grad():
        for flip in (False, True):
            first, second = fields(model, image, flip), fields(model, image, flip, max_pixels=48 * 64)
            assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# --- mean displacement --------------------------------------------------------------------------------------------


def test_mean_displacement_by_hand():
    generator = np.random.default_rng(0)
    found = [generator.normal(3, 9, (2, height, 7)).astype(np.float32) for height in (4, 9)]
    tensors = [torch.from_numpy(field) for field in found]
    everything = np.concatenate([field.reshape(2, -1) for field in found], axis=1).astype(np.float64)
    mean = mean_displacement((field, None) for field in tensors)
    assert mean.dtype == torch.float32
    assert mean.numpy() == pytest.approx(everything.mean(1), abs=1e-6)
    chosen = [generator.random(field.shape[1:]) < 0.3 for field in found]
    some = np.concatenate([field[:, mask] for field, mask in zip(found, chosen, strict=True)], axis=1)
    assert mean_displacement(zip(tensors, chosen, strict=True)).numpy() == pytest.approx(some.mean(1), abs=1e-5)
    assert mean_displacement([(tensors[0], np.zeros((4, 7), bool))]).tolist() == [0, 0]
    assert mean_displacement([]).tolist() == [0, 0]


class Gpu(torch.Tensor):
    """A tensor on a device without float64, as Apple's GPUs are, until ``cpu`` is called."""

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_float64_is_used_on_the_cpu_alone():
    field = torch.ones(2, 3, 4).as_subclass(Gpu)
    assert mean_displacement([(field, None), (field, np.ones((3, 4), bool))]).tolist() == [1, 1]
