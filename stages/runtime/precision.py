"""Mixed precision: what ``runtime.precision`` means where a network runs, and how to keep it out of what is no network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch

_MIXED = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def number_format(precision: str, device: torch.device) -> torch.dtype | None:
    """What products are computed in, as Fabric chooses it for a training: none is as they are.

    A CPU has no mixed precision of float16; there, as in Fabric, bfloat16 takes its place.
    """
    found = _MIXED.get(precision)
    return torch.bfloat16 if found is not None and device.type == "cpu" else found


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Within the block networks run on a device as ``runtime.precision`` says."""
    chosen = number_format(precision, device)
    return nullcontext() if chosen is None else torch.autocast(device.type, chosen)


@contextmanager
def unmixed() -> Iterator[None]:
    """Within the block, or the function that it decorates, mixed precision is off: tensors are computed with as they
    are, so what comes from a network is to be made single first. Whatever else is set stays."""
    with ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
