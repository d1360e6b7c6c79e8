"""Backbones from timm by name, with the stride that a method asks for and a known geometry of their feature maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from stages.cues.settings import BackboneSettings
from stages.runtime.errors import UserError
from stages.runtime.precision import unmixed
from stages.runtime.weights import read_state

# Mean and standard deviation of ImageNet's RGB values in 0..1, which timm's weights expect.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Grid:
    """Where the cells of a map lie in the image: cell i is centred on pixel ``origin + stride * i`` (both axes)."""

    stride: float
    origin: float


def grid_of(stride: int) -> Grid:
    """The grid of an image reduced by area: cell i covers the pixels ``stride * i`` to ``stride * (i + 1) - 1``."""
    return Grid(stride, (stride - 1) / 2)


def resample(maps: Tensor, source: Grid, target: Grid, size: tuple[int, int],
             columns: tuple[Grid, Grid] | None = None) -> Tensor:
    """Bilinear values of ``maps`` at the cells of another grid; beyond the border the nearest cell counts.

    Features of strided convolutions are not centred where ``interpolate`` assumes: a ResNet's cell i sits on pixel
    ``stride * i``, half a cell off, which is 7.5 px at stride 16.

    Args:
        maps: (N, C, h, w) on ``source``.
        source, target: the two grids.
        size: (rows, columns) of the result.
        columns: source and target along the columns, where they differ from those along the rows; with a negative
            stride of the target the result is mirrored.

    Returns:
        (N, C, *size), differentiable.
    """
    rows = constant(_interpolation, size[0], maps.shape[-2], source, target, like=maps)
    across = constant(_interpolation, size[1], maps.shape[-1], *(columns or (source, target)), like=maps)
    return rows @ maps @ across.T


def resample_output(maps: Tensor, source: Grid, target: Grid, size: tuple[int, int],
                    columns: tuple[Grid, Grid] | None = None) -> Tensor:
    """``resample`` of what a network has given: in single precision, or double where it is, whatever runs around it.

    Between two cells half a number's digits would give steps where there is a slope, and so no peak a place of its own.
    """
    with unmixed():
        return resample(maps if maps.dtype == torch.float64 else maps.float(), source, target, size, columns)


def constant(make: Callable[..., Tensor], *arguments: Any, like: Tensor) -> Tensor:
    """What ``make`` makes of its arguments on the CPU, with the type and device of ``like``; not to be written into.

    On a GPU it is kept: a copy to there makes the host wait until all that was asked for before is done, and a network
    that is trained asks for the same few matrices at every step.

    Args:
        make: a function, the same one at every call.
        arguments: hashable.
        like: type and device.
    """
    if like.device.type == "cpu" or type(like) is not Tensor:  # fake tensors belong to one count of memory
        return make(*arguments).to(like)
    return _kept(make, arguments, like.device, like.dtype)


@lru_cache(maxsize=64)
def _kept(make: Callable[..., Tensor], arguments: tuple[Any, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # a training may ask for what an inference left here
        return make(*arguments).to(device, dtype)


def _interpolation(count: int, cells: int, source: Grid, target: Grid) -> Tensor:
    """(count, cells) weights of a linear interpolation between cells: two per row, which sum to 1.

    Two small matrix products are faster on a CPU than ``grid_sample``, and their gradient is deterministic on a GPU.
    """
    pixels = target.origin + target.stride * torch.arange(count, dtype=torch.float64)
    at = ((pixels - source.origin) / source.stride).clamp(0, cells - 1)
    below = at.floor().long().clamp(max=max(cells - 2, 0))
    share = at - below
    weights = torch.zeros(count, cells, dtype=torch.float64)
    weights.scatter_add_(1, below[:, None], (1 - share)[:, None])
    weights.scatter_add_(1, (below + 1).clamp(max=cells - 1)[:, None], share[:, None])
    return weights.float()


class Backbone(nn.Module):
    """A timm network without its classifier.

    ``forward`` gives the last feature map, ``levels`` all levels from fine to coarse. ``grids`` and ``channels``
    describe the levels, ``grid`` and ``width`` the last map.
    """

    body: Any  # whatever timm makes
    mean: Tensor
    deviation: Tensor

    def __init__(self, settings: BackboneSettings) -> None:
        super().__init__()
        self.settings = settings
        try:
            self.body = timm.create_model(settings.name, pretrained=settings.weights == "imagenet", num_classes=0,
                                          global_pool="", **settings.arguments)
        except (RuntimeError, TypeError, OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"backbone {settings.name!r} (weights: {settings.weights}) cannot be made: {reason}. "
                            f"Give a timm model name, or the path of a weights file where timm's download "
                            f"cannot be reached") from None
        if settings.weights not in ("imagenet", "none"):
            load_weights(self.body, Path(settings.weights))
        if hasattr(self.body, "pre_logits"):  # VGG's fully connected layers: unused, and 120 million parameters
            self.body.pre_logits = nn.Identity()
        try:
                origins = _limit_stride(self.body, settings.stride)
        except RuntimeError as error:  # e.g. an HRNet, whose branches meet at fixed reductions
            raise UserError(f"backbone {settings.name!r}: stride {settings.stride} cannot be had "
                            f"({str(error).splitlines()[0]}); choose its own stride, or another backbone") from None
        self.body.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1), persistent=False)
        self._measure(origins)

    def _measure(self, origins: Mapping[int, float]) -> None:
        """Find the channels and grids of the levels by one small forward pass."""
        self._origins = dict(origins)
        side = _PROBE
        was_training = self.training
        self.eval()
        with torch.no_grad():
            levels = self.levels(torch.zeros(1, 3, side, side, dtype=torch.uint8))
            last = self.forward(torch.zeros(1, 3, side, side, dtype=torch.uint8))
        self.train(was_training)
        self.channels = [level.shape[1] for level in levels]
        self.grids = [_grid(side, level.shape[-1], origins) for level in levels]
        self.width = last.shape[1]
        self.grid = _grid(side, last.shape[-1], origins)
        if self.grid.stride != self.settings.stride:
            raise UserError(f"backbone {self.settings.name!r}: stride {self.settings.stride} cannot be had, the last "
                            f"map has stride {self.grid.stride:g}; choose that, or another backbone")

    def grid_at(self, name: str) -> Grid:
        """Where the cells lie of what a layer gives, by its name in ``body``, e.g. ``layer3``."""
        widths: list[int] = []
        hook = dict(self.body.named_modules())[name].register_forward_hook(
            lambda module, inputs, output: widths.append(output.shape[-1]))
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                self.forward(torch.zeros(1, 3, _PROBE, _PROBE, dtype=torch.uint8, device=self.mean.device))
        finally:
            hook.remove()
            self.train(was_training)
        return _grid(_PROBE, widths[-1], self._origins)

    def _normalise(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = images.float() / 255
        # Channels last halves the time of convolutions on a CPU.
        return ((images - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W), uint8 or float in 0..1, to the last feature map (N, width, h, w)."""
        return self.body.forward_features(self._normalise(images))

    def levels(self, images: Tensor) -> list[Tensor]:
        """RGB images (N, 3, H, W) to one map per level, fine to coarse."""
        return self.body.forward_intermediates(self._normalise(images), intermediates_only=True)

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        if self.settings.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
                    module.requires_grad_(False)
        return self


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict from a file; classifier tensors that ``model`` has no place for are left out.

    Raises:
        UserError: no such file, no state dict, or tensors that do not fit; the first ones are named.
    """
    state = read_state(path)
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    wrong = [f"{name} is {tuple(state[name].shape)}, the model has {tuple(own[name].shape)}"
             for name in own if name in state and state[name].shape != own[name].shape]
    strange = [name for name in state if name not in own
               and not name.startswith(("classifier", "fc.", "head.", "last_linear"))]
    problems = [f"{name} is missing" for name in missing] + wrong + [f"{name} is unknown" for name in strange]
    if problems:
        raise UserError(f"{path}: these weights do not fit {type(model).__name__} ({len(problems)} differences: "
                        f"{'; '.join(problems[:3])}); check the backbone's name and arguments")
    model.load_state_dict({name: state[name] for name in own if name in state}, strict=False)


_PROBE = 256


def _grid(side: int, cells: int, origins: Mapping[int, float]) -> Grid:
    stride = round(side / cells)
    return Grid(stride, origins.get(stride, 0.0))


def _limit_stride(model: nn.Module, stride: int) -> dict[int, float]:
    """Undo every downsampling beyond ``stride``, without dilation (IRNet sec. 3), and measure where cells lie.

    A probe image shows at which reduction each strided layer works, whatever the network calls its layers.

    Returns:
        Origin of the grid for each reduction that occurs.
    """
    shifts: dict[int, list[float]] = {}
    steps: dict[int, int] = {}

    def look(module: Any, inputs: Sequence[Tensor]) -> None:
        step = _pair(module.stride if module.stride is not None else module.kernel_size)
        reduction = _PROBE // inputs[0].shape[-1]
        if step == 1:
            return
        if reduction >= stride:
            module.stride = (1, 1) if isinstance(module, nn.Conv2d) else 1
            if not isinstance(module, nn.Conv2d) and _pair(module.kernel_size) == step:
                module.kernel_size = 1  # a window as wide as its step has no use without the step
            return
        kernel = _pair(module.kernel_size)
        # TensorFlow's padding ("same") puts the odd pixel at the end.
        before = max(kernel - step, 0) // 2 if "Same" in type(module).__name__ else _pair(module.padding)
        shifts.setdefault(reduction, []).append(reduction * ((kernel - 1) / 2 - before))
        steps[reduction] = step

    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    hooks = [module.register_forward_pre_hook(look) for module in model.modules() if isinstance(module, kinds)]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        model.forward_features(torch.zeros(1, 3, _PROBE, _PROBE))  # type: ignore[operator]
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    origins, origin = {1: 0.0}, 0.0
    for reduction in sorted(shifts):
        # Parallel paths may disagree: a ResNet-D's shortcut averages 2 x 2 cells beside a centred convolution.
        origin += sum(shifts[reduction]) / len(shifts[reduction])
        origins[reduction * steps[reduction]] = origin
    return origins


def _pair(value: int | tuple[int, ...] | list[int]) -> int:
    return int(value[0] if isinstance(value, (tuple, list)) else value)
