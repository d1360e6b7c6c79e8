"""What the generator is to agree with: the refined mean of its own and its teacher's masks (section 3.2.3, eq. 9)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from stages.propagation.mean_field import mean_field_by
from stages.propagation.settings import MeanFieldSettings


def refined(masks: Tensor, images: Tensor, inside: Tensor, settings: MeanFieldSettings) -> Tensor:
    """CRF(M_avg) of eq. 9, and nothing outside the box.

    Args:
        masks: (B, m, m) probabilities.
        images: (B, 3, s, s) uint8 crops, s a multiple of m.
        inside: (B, m, m) float, 1 inside the box.
        settings: of the mean-field.
    """
    small = functional.adaptive_avg_pool2d(images.float(), (masks.shape[-2], masks.shape[-1]))
    return inside * mean_field_by(settings, masks * inside, small)


def with_scores(masks: Tensor, scores: Tensor, share: float) -> Tensor:
    """Masks (B, m, m) with a share of the propagation scores (B, N, N), the sigmoid of which is a probability.

    The scores are in units of 1 / N^2 and positive for foreground. Objects without points have scores of 0 only; their
    masks stay as they are.
    """
    size = (masks.shape[-2], masks.shape[-1])
    # Both maps are divisions of the same crop into equal cells, which is what `interpolate` assumes.
    likely = functional.interpolate(scores[:, None].sigmoid(), size, mode="bilinear", align_corners=False)
    shares = share * scores.flatten(1).any(1).to(masks)[:, None, None]
    return masks + shares * (likely[:, 0] - masks)
