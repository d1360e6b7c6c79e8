"""Where tensors live."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stages.runtime import distributed
from stages.runtime.errors import UserError
from stages.runtime.precision import unmixed


def resolve(device: str) -> torch.device:
    """Turn a setting into this process's device: ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Of several processes on one machine each gets the GPU of its own number, and that becomes its current one, before
    anything is built on it. On CUDA, products of matrices run as convolutions do there: with 10 bits of the factors'
    mantissas and sums in single precision (TF32), several times as fast; kernels that need more digits ask for
    ``exact_products``.

    Raises:
        UserError: the device is not one that this machine has.
    """
    # No kernels of cuDNN's chosen by timing or summing in any order. Torch's own may still: sums over indices, and
    # gradients of interpolations. So on a GPU two runs can differ in the last bits.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    found = _found(device)
    if found.type == "cuda":
        torch.set_float32_matmul_precision("high")
    return found


@contextmanager
def exact_products() -> Iterator[None]:
    """Within the block, or the function that it decorates, products of matrices keep all digits of single precision.

    For differences of products, and for what is multiplied over and over: TF32, or mixed precision around it, would
    leave three digits of it, or two.
    """
    before = torch.get_float32_matmul_precision()
    with unmixed():
        if before == "highest":
            yield
            return
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


def _found(device: str) -> torch.device:
    """The device of ``resolve``."""
    shared = distributed.world_size() > 1
    if device == "auto":
        if torch.cuda.is_available():
            return _own_gpu() if shared else torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        wanted = torch.device(device)
        if wanted.type == "cuda" and shared:
            return _own_gpu()
        if wanted.type not in ("cpu", "cuda", "mps"):  # "meta", for one, holds no numbers
            raise RuntimeError("no device that computes here")
        torch.empty(1, device=wanted)
    except UserError:
        raise
    except Exception as error:  # torch asks the driver, which raises what it likes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"runtime.device: {device!r} cannot be used here ({reason}); use 'auto' or 'cpu'") from None
    return wanted


def check_count(processes: int) -> None:
    """Refuse more processes than this machine has GPUs, each of which gets one.

    Raises:
        UserError: there are fewer.
    """
    count = torch.cuda.device_count()
    if processes > count:
        raise UserError(f"runtime.processes: {processes} processes, but {count} GPUs on this machine; use at most "
                        f"{count}, or runtime.device: cpu")


def _own_gpu() -> torch.device:
    """The GPU of this process's number on its machine."""
    number, count = distributed.local_rank(), torch.cuda.device_count()
    if number >= count:
        raise UserError(f"runtime.processes: process {number + 1} of {distributed.local_world_size()} on this machine "
                        f"has no GPU of its own ({count} there); use at most {count} processes, or runtime.device: cpu")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
