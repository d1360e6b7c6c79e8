"""About how long the proposals take and what they keep, for `check`."""

from __future__ import annotations

from stages.proposals.settings import ProposalSettings


def estimate(settings: ProposalSettings, images: int, pixels: float, workers: int) -> tuple[float, float]:
    """Seconds and bytes for ``images`` training images of ``pixels`` each, within a factor of three."""
    shown = min(pixels, settings.hierarchy.max_pixels)
    # Two seconds per 640 x 480 px with 1200 regions; a proposal's runs take about 150 bytes.
    rate = 2 / (640 * 480) if settings.provider == "hierarchy" else 0.2 / (640 * 480)
    return images * shown * rate / workers, images * settings.limit * 150.0
