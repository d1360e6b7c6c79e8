"""Mean-field of a dense CRF with any number of labels, as a recurrent module that can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stages.propagation.kernels import Kernel, Normalisation, bilateral_kernel, gaussian_kernel


def image_kernels(
    image: Tensor,
    *,
    gaussian_xy: float = 3.0,
    bilateral_xy: float = 49.0,
    bilateral_rgb: float = 5.0,
    normalisation: Normalisation = "symmetric",
) -> tuple[Kernel, Kernel]:
    """The smoothness and the appearance kernel of Kraehenbuehl and Koltun (2011), built once per image.

    With d the distance of two pixels and c that of their colours, they are exp(-d^2 / 2 gaussian_xy^2), exact, and
    exp(-d^2 / 2 bilateral_xy^2 - c^2 / 2 bilateral_rgb^2), on the permutohedral lattice that pydensecrf uses. At
    512 x 512 they hold some 60 MB and are built in about .2 s of one CPU core.

    Args:
        image: (3, H, W) RGB in [0, 255], on any device: float64 for maps of float64, else uint8 or any floating type
            for maps of float32.
        gaussian_xy: width of the smoothness kernel [pixels].
        bilateral_xy: spatial width of the appearance kernel [pixels].
        bilateral_rgb: colour width of the appearance kernel [8-bit levels].
            The defaults are those of panoptic's published results; scale the first two with the image.
        normalisation: of both, see :class:`stages.propagation.kernels.Kernel`.

    Raises:
        ValueError: an image of another shape, empty or not finite; widths that are not positive or too small for a
            lattice over the image; an unknown normalisation.
    """
    if image.ndim != 3 or image.shape[0] != 3 or image.numel() == 0:
        raise ValueError(f"the image must be (3, H, W) and not empty, got {tuple(image.shape)}")
    if not bool(torch.isfinite(image).all()):
        raise ValueError("the image must be finite")
    widths = (gaussian_xy, bilateral_xy, bilateral_rgb)
    if not min(widths) > 0:
        raise ValueError(f"the kernels' widths must be positive, got {widths}")
    colour = image.detach().to(torch.float64 if image.dtype == torch.float64 else torch.float32)[None] / bilateral_rgb
    return (
        gaussian_kernel(colour[:, 0], gaussian_xy, normalisation),
        bilateral_kernel(colour, bilateral_xy, normalisation),
    )


def label_mean_field(
    log_unary: Tensor, kernels: Sequence[Kernel], weights: Tensor | Sequence[float], steps: int
) -> Tensor:
    """Marginals of a dense CRF with Potts terms after some mean-field steps, with a gradient.

    The energy of a labelling x of the pixels is that of Kraehenbuehl and Koltun (2011) and panoptic's eq. 2,

        E(x) = sum_i -log_unary_i(x_i) + sum_(i<j) [x_i != x_j] sum_k weights_k kernels_k,ij.

    Starting from q = softmax(log_unary), all pixels step together,

        q_i(l) <- softmax_l (log_unary_i(l) + sum_k weights_k sum_j kernels_k,ij q_j(l)):

    what a label pays for others, sum_j k_ij (1 - q_j(l)), differs from -sum_j k_ij q_j(l) by a number that all labels
    of a pixel share. The gradient is that of the computation, with regard to the unaries and the weights.

    Args:
        log_unary: (L, H, W) floating, on the kernels' device; log of values that need not sum to one. -inf forbids a
            label; every pixel needs one that is not forbidden.
        kernels: of the image, as :func:`image_kernels` makes them.
        weights: (K,), one for each kernel.
        steps: >= 0.

    Returns:
        (L, H, W), the logarithm of the marginals: their cross-entropy needs no second logarithm, and ``exp`` of it sums
        to one over L. float64 if ``log_unary`` is, float32 otherwise. One label has marginal 1; no label, or no pixel,
        gives an empty tensor. The same input gives the same bytes on the same machine, gradients included.

    Raises:
        ValueError: a shape or type that does not fit, another number of weights than kernels, a negative number of
            steps.
    """
    if log_unary.ndim != 3 or not log_unary.is_floating_point():
        raise ValueError(f"unaries must be floating (L, H, W), got {log_unary.dtype} {tuple(log_unary.shape)}")
    if len(weights) != len(kernels):
        raise ValueError(f"each kernel needs a weight, got {len(kernels)} kernels and {len(weights)} weights")
    if steps < 0:
        raise ValueError(f"the number of steps must not be negative, got {steps}")
    if log_unary.dtype != torch.float64:
        log_unary = log_unary.float()
    logits = log_unary
    if log_unary.numel():
        weights = torch.as_tensor(weights, dtype=log_unary.dtype, device=log_unary.device)
        numbers = weights.tolist()  # once: a GPU has to be waited for
        for kernel in kernels:
            if kernel.size != log_unary.shape[1:] or kernel.dtype != log_unary.dtype:
                raise ValueError(f"the kernels filter {kernel.dtype} maps of {kernel.size} pixels, the unaries are "
                                 f"{log_unary.dtype} {tuple(log_unary.shape)}")
        for _ in range(steps):
            logits = _Step.apply(log_unary, logits.softmax(0), weights, numbers, kernels)
    return logits.log_softmax(0)


class _Step(torch.autograd.Function):
    """log_unary + sum_k weights_k kernels_k q. No message is kept: a weight's gradient is <g, K q> = <K^T g, q>."""

    @staticmethod
    def forward(ctx: Any, log_unary: Tensor, q: Tensor, weights: Tensor, numbers: list[float],
                kernels: Sequence[Kernel]) -> Tensor:
        ctx.save_for_backward(q)
        ctx.numbers, ctx.kernels = numbers, kernels
        logits = log_unary.clone()
        for number, kernel in zip(numbers, kernels, strict=True):
            logits.add_(kernel.filtered(q[None])[0], alpha=number)
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (q,) = ctx.saved_tensors
        for_q, for_weights = torch.zeros_like(q), []
        for number, kernel in zip(ctx.numbers, ctx.kernels, strict=True):
            back = kernel.transposed(gradient[None])[0]
            for_q.add_(back, alpha=number)
            for_weights.append(back.mul_(q).sum())
        return gradient, for_q, torch.stack(for_weights) if for_weights else q.new_zeros(0), None, None
