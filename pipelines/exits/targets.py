"""What the generator is to agree with: the refined mean of its own and its teacher's masks (section 3.2.3, eq. 9); and
the propagation scores as masks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from pipelines.exits.settings import CrfSettings
from stages.propagation.mean_field import mean_field_by


def refined(masks: Tensor, images: Tensor, inside: Tensor, settings: CrfSettings) -> Tensor:
    """CRF(M_avg) of eq. 9, and nothing outside the box, which is background for certain there.

    Args:
        masks: (B, m, m) probabilities.
        images: (B, 3, s, s) uint8 crops, s a multiple of m.
        inside: (B, m, m) float, 1 inside the box.
        settings: of the mean-field, and of what is done before and after it.

    Returns:
        (B, m, m): probabilities, or 0 and 1 where the settings are ``binary``.
    """
    small = functional.adaptive_avg_pool2d(images.float(), (masks.shape[-2], masks.shape[-1]))
    if settings.clamp > 0:
        masks = masks.clamp(settings.clamp, 1 - settings.clamp)
    found = mean_field_by(settings, masks * inside, small)
    return inside * ((found > 0.5).to(found) if settings.binary else found)


def score_masks(scores: Tensor, cells: int, middle: float = 0.0) -> Tensor:
    """Propagation scores (B, N, N) as probabilities (B, cells, cells).

    They are in units of 1 / N^2 and positive for foreground; a score of ``middle`` is a probability of 1/2.
    """
    # Both maps are divisions of the same crop into equal cells, which is what `interpolate` assumes.
    likely = (scores[:, None] - middle).sigmoid()
    return functional.interpolate(likely, (cells, cells), mode="bilinear", align_corners=False)[:, 0]


def with_scores(masks: Tensor, scores: Tensor, share: float) -> Tensor:
    """Masks (B, m, m) with a share of the propagation scores (B, N, N), the sigmoid of which is a probability.

    Objects without points have scores of 0 only; their masks stay as they are.
    """
    shares = share * has_scores(scores).to(masks)[:, None, None]
    return masks + shares * (score_masks(scores, masks.shape[-1]) - masks)


def has_scores(scores: Tensor) -> Tensor:
    """(B,) bool: which crops have propagation scores (B, N, N); those of objects without points are all 0."""
    return scores.flatten(1).any(1)
