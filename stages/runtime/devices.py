"""Where tensors live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.runtime.errors import UserError

if TYPE_CHECKING:
    import torch


def resolve(device: str) -> torch.device:
    """Turn a setting into a device: ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UserError: the device is not one that this machine has.
    """
    import torch

    # The same bytes from run to run on a GPU too: no kernels chosen by timing or summing in any order.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        wanted = torch.device(device)
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"runtime.device: {device!r} cannot be used here ({reason}); use 'auto' or 'cpu'") from None
    return wanted
