"""Peak response mapping (Zhou et al., CVPR 2018): peaks of class maps, stimulated in training, traced back to pixels.

Training: the score of a class is the mean of its map over the map's peaks, so that peaks, and not areas, are learnt.
Inference: a peak's response map is the probability that a random walker who goes down from the peak through the
network, layer by layer, along the positive weights and the active inputs, visits a pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from stages.cues.backbone import Backbone, Grid, resample
from stages.cues.settings import BackboneSettings
from stages.runtime.precision import unmixed

Run = Callable[[Tensor], Tensor]
"""A layer's forward pass."""

_ELEMENTWISE = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish,
                nn.LeakyReLU, nn.Dropout)


class PeakClassifier(nn.Module):
    """A fully convolutional classifier whose scores are means over peaks.

    Args:
        settings: of the backbone.
        classes: their number.
        enlarge: factor on the class maps before peaks are looked for.
        window: odd side of the window in which a peak is the maximum [cells of the enlarged map].
    """

    def __init__(self, settings: BackboneSettings, classes: int, enlarge: int, window: int) -> None:
        super().__init__()
        self.backbone = Backbone(settings)
        self.head = nn.Conv2d(self.backbone.width, classes, 1)
        self.enlarge, self.window = enlarge, window

    @property
    def grid(self) -> Grid:
        """Where the cells of the enlarged maps lie."""
        stride = self.backbone.grid.stride / self.enlarge
        return Grid(stride, (stride - 1) / 2)

    def maps(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W) to class responses (N, C, h, w) on ``grid``."""
        stride = self.grid.stride
        size = (int(-(-images.shape[-2] // stride)), int(-(-images.shape[-1] // stride)))
        return resample(self.head(self.backbone(images)), self.backbone.grid, self.grid, size)

    def forward(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W) to class scores (N, C), the logits of a soft-margin loss."""
        return peak_scores(self.maps(images), self.window)


def find_peaks(maps: Tensor, window: int) -> Tensor:
    """(N, C, h, w) bool: cells that are the first maximum of the window around them and above their map's median.

    A map that is level everywhere, or nowhere above its median, has no peak.

    Args:
        maps: (N, C, h, w).
        window: odd.
    """
    height, width = maps.shape[-2:]
    _, best = functional.max_pool2d(maps, window, stride=1, padding=window // 2, return_indices=True)
    own = torch.arange(height * width, device=maps.device).view(height, width)
    medians = maps.flatten(2).median(2).values[..., None, None]
    return (best == own) & (maps > medians)


def peak_scores(maps: Tensor, window: int) -> Tensor:
    """Mean of each map over its peaks; the maximum where there is no peak. (N, C, h, w) to (N, C), differentiable.

    The gradient reaches the peaks alone: peak stimulation.
    """
    with torch.no_grad():
        peaks = find_peaks(maps, window)
        none = ~peaks.flatten(2).any(2)
        first = functional.one_hot(maps.flatten(2).argmax(2), maps[0, 0].numel()).bool().view_as(peaks)
        peaks = torch.where(none[..., None, None], first, peaks)
    return (maps * peaks).sum((2, 3)) / peaks.sum((2, 3))


@unmixed()
def image_peaks(model: PeakClassifier, image: Tensor, classes: list[int], least: float) \
        -> list[tuple[int, float, np.ndarray]]:
    """Peaks of some classes of an image, and the response map of each; in single precision, as what is shared out
    layer by layer is divided by the sums of the forward pass.

    Args:
        model: in evaluation mode.
        image: (3, H, W) uint8 RGB on the model's device.
        classes: indices of those that the image's tags name.
        least: responses that a peak exceeds.

    Returns:
        Class index, response and response map (H, W) float32, not negative, by class, then in reading order.
    """
    found = []
    with torch.inference_mode(False), torch.enable_grad(), positive_backward(model):
        pixels = (image[None].float() / 255).clone().requires_grad_()
        maps = model.maps(pixels)
        peaks = find_peaks(maps.detach(), model.window) & (maps.detach() > least)
        for index in classes:
            for row, column in peaks[0, index].nonzero().tolist():
                start = torch.zeros_like(maps)
                start[0, index, row, column] = 1
                response, = torch.autograd.grad(maps, pixels, start, retain_graph=True)
                found.append((index, float(maps[0, index, row, column].detach()),
                              response[0].sum(0).clamp(min=0).detach().cpu().numpy()))
    return found


class _PositiveConvolution(torch.autograd.Function):
    """A convolution whose backward pass hands on probabilities (sec. 3.2 of the cited paper).

    With inputs U >= 0 and the positive weights W+, P(U_i) = U_i * sum over the outputs j that it reaches of
    W+_ij P(V_j) / (sum over k of W+_kj U_k): each output's probability is shared out among its inputs in proportion to
    what they add to it.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, inputs: Tensor, layer: nn.Conv2d, run: Run) -> Tensor:
        ctx.layer = layer  # type: ignore[attr-defined]
        ctx.save_for_backward(inputs)
        return run(inputs)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None, None]:
        layer, (inputs,) = ctx.layer, ctx.saved_tensors  # type: ignore[attr-defined]
        # Activations are not negative; the image itself, and what a layer without ReLU gives, are moved there.
        active = (inputs - inputs.amin().clamp(max=0)).detach().requires_grad_()
        weight = layer.weight.clamp(min=0).detach()
        with torch.enable_grad():
            # timm's layers pad in their own ways: the layer itself runs, with other weights.
            outputs = _with_weight(layer, weight, active)
        share = torch.where(outputs > 1e-12, gradients[0] / outputs.clamp(min=1e-12), 0).detach()
        back, = torch.autograd.grad(outputs, active, share)
        return back * active.detach(), None, None


def _with_weight(layer: nn.Conv2d, weight: Tensor, inputs: Tensor) -> Tensor:
    """The layer's own forward pass with another weight and without bias."""
    parameters = {"weight": weight}
    if layer.bias is not None:
        parameters["bias"] = torch.zeros_like(layer.bias)
    run = layer.__dict__.pop("forward", None)  # ours, which would call this again
    try:
        return torch.func.functional_call(layer, parameters, (inputs,))
    finally:
        if run is not None:
            layer.forward = run  # type: ignore[method-assign]


class _Unchanged(torch.autograd.Function):
    """A layer of one input per output hands every probability on as it is."""

    @staticmethod
    def forward(ctx: FunctionCtx, inputs: Tensor, run: Run) -> Tensor:
        return run(inputs.clone())  # some work in place

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


@contextmanager
def positive_backward(model: nn.Module) -> Iterator[None]:
    """Within the block the backward pass of ``model`` hands down probabilities instead of gradients.

    Convolutions share them out (see ``_PositiveConvolution``); normalisation and activation hand them on; the maximum
    of a pool gets all of it, a mean shares equally; at a sum both addends get it. The forward pass is as ever.
    """
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                stack.enter_context(_replaced(module, _convolution(module)))
            elif isinstance(module, _ELEMENTWISE):
                stack.enter_context(_replaced(module, _elementwise(module)))
        yield


def _convolution(layer: nn.Conv2d) -> Run:
    run = layer.forward
    return lambda inputs: _PositiveConvolution.apply(inputs, layer, run)


def _elementwise(layer: nn.Module) -> Run:
    run = layer.forward
    return lambda inputs: _Unchanged.apply(inputs, run)


@contextmanager
def _replaced(module: nn.Module, forward: Run) -> Iterator[None]:
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward
