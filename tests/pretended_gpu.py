"""A GPU that is not there: CPU tensors that count as CUDA's, so that a tensor left on the CPU is an error here, too.

torch's own fake tensors of a device that the machine lacks go forward only, as their backward pass asks CUDA for a
context, and what depends on data (blobs, peaks, detections) has no fake. So here everything is computed, on the CPU,
and the device is a mark on a tensor's memory, which no operation crosses but those that may on a GPU:

    with pretended_gpu() as gpu:
        model = gpu.take(model)
        loss(model(gpu.take(batch))).backward()
    assert gpu.waits["number"] == 1

Mixed precision casts as ``torch.autocast("cpu")`` does, whose list of operations differs from CUDA's a little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from stages.cues import backbone

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
Anything = TypeVar("Anything")

# What reads its other tensors wherever they are, as on a GPU: indices may lie on the CPU, at the price of a copy.
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_COPIES = {"copy_", "_to_copy", "set_", "resize_as_"}
# Their result's size is data: the host waits for it.
_SIZED_BY_DATA = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "argwhere"}


def on_gpu(tensor: Tensor) -> bool:
    """Whether a tensor counts as a GPU's."""
    return getattr(tensor.untyped_storage(), "on_gpu", False)


def mark(tensor: Tensor) -> Tensor:
    """Let a tensor, and all that shares its memory, count as a GPU's."""
    tensor.untyped_storage().on_gpu = True  # type: ignore[attr-defined]
    return tensor


class Gpu:
    """What happened: ``waits`` counts how often the host waited for the GPU, or the GPU for the host, by reason."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()

    def wait(self, reason: str, times: int = 1) -> None:
        """Count it; a reason that did not occur is not mentioned."""
        if times:
            self.waits[reason] += int(times)

    def take(self, value: Anything) -> Anything:
        """Modules, in place, and copies of the tensors in anything nested, as the GPU's."""
        if isinstance(value, nn.Module):
            for tensor in (*value.parameters(), *value.buffers()):
                mark(tensor.data)
            return value
        with torch._C.DisableTorchFunction():
            return tree_map_only(Tensor, lambda tensor: mark(tensor.clone()), value)


class Planted(nn.Module):
    """A layer with a tensor that no ``to(device)`` reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(3, 4), torch.ones(4)

    def forward(self, values):
        return self.layer(values) * self.table


@contextmanager
def pretended_gpu() -> Iterator[Gpu]:
    """Within the block ``cuda`` is a device."""
    gpu, autocast = Gpu(), torch.amp.autocast_mode.autocast.__init__

    def on_cpu(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        autocast(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    rules = _Rules(gpu)
    with mock.patch.object(torch.amp.autocast_mode.autocast, "__init__", on_cpu), \
            mock.patch("torch.autograd.has_torch_function", _never), \
            mock.patch("torch._tensor.has_torch_function_unary", _never), rules, _Names(gpu, rules):
        try:
            yield gpu
        finally:
            backbone._kept.cache_clear()  # its matrices lie on a GPU that is gone


def _never(*tensors: object) -> bool:
    """Going backward is no function to ``_Names``, which would not see what our own functions do there."""
    return False


class _Rules(TorchDispatchMode):
    """Below everything: no operation, forward or backward, takes tensors of both devices, and marks are handed on."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu, self.making = gpu, False  # whether what an operation makes of nothing is the GPU's

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = func.overloadpacket.__name__
        there = [on_gpu(tensor) for tensor in tensors]
        if any(there):
            self._check(name, args, tensors, there)
            self._count(name, args, tensors, there)
        out = func(*args, **kwargs)
        if (any(there) or self.making and not tensors) and name not in _COPIES:
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor):
                    mark(leaf)
        elif any(there) and name == "_to_copy" and there[0]:
            mark(out)
        return out

    def _check(self, name: str, args: Any, tensors: list[Tensor], there: list[bool]) -> None:
        if name in _COPIES:
            return
        left = [tensor for tensor, marked in zip(tensors, there, strict=True) if not marked and tensor.dim() > 0]
        if name in _INDEXING:  # the indices may be anywhere, what is read and written not
            left = [tensor for tensor in left if not any(tensor is index for index in args[1] or ())]
        if left:
            raise RuntimeError(f"{name}: tensors on cuda:0 and cpu: {[tuple(tensor.shape) for tensor in tensors]}, of "
                               f"which {[tuple(tensor.shape) for tensor in left]} are on the cpu")

    def _count(self, name: str, args: Any, tensors: list[Tensor], there: list[bool]) -> None:
        wait = self.gpu.wait
        if name == "_local_scalar_dense":
            wait("number")
        elif name in _SIZED_BY_DATA:
            wait("size")
        elif name in _INDEXING:
            chosen = [index for index in args[1] or () if index is not None]
            wait("size", any(index.dtype in (torch.bool, torch.uint8) and on_gpu(index) for index in chosen))
            wait("to gpu", sum(not on_gpu(index) for index in chosen))
        elif name == "repeat_interleave" and isinstance(args[0], Tensor) and len(tensors) == 1:
            wait("size")
        elif name == "copy_" and there[0] != there[1] and tensors[1].dim():
            wait("to gpu" if there[0] else "from gpu")


class _Names(TorchFunctionMode):
    """Above everything: what is asked of a tensor's device, and what is asked for on one."""

    def __init__(self, gpu: Gpu, rules: _Rules) -> None:
        super().__init__()
        self.gpu, self.rules = gpu, rules

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        special = _SPECIAL.get(func)
        if special is not None:
            return special(self.gpu, *args, **kwargs)
        if "device" not in kwargs or not _is_cuda(kwargs["device"]):
            # What torch's own functions make beside a GPU's tensor they make there.
            given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            before, self.rules.making = self.rules.making, any(map(on_gpu, given))
            try:
                return func(*args, **kwargs)
            finally:
                self.rules.making = before
        kwargs["device"] = CPU
        out = func(*args, **kwargs)
        if func in (torch.tensor, torch.as_tensor) and out.numel():
            self.gpu.wait("to gpu")
        return tree_map_only(Tensor, mark, out)


def _is_cuda(device: object) -> bool:
    return device is not None and torch.device(device).type == "cuda"  # type: ignore[arg-type]


def _device(gpu: Gpu, tensor: Tensor) -> torch.device:
    return CUDA if on_gpu(tensor) else CPU


def _is_cuda_tensor(gpu: Gpu, tensor: Tensor) -> bool:
    return on_gpu(tensor)


def _to(gpu: Gpu, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """All forms of ``Tensor.to``."""
    device, switches = kwargs.pop("device", None), ["non_blocking", "copy"]
    for value in (*args, *([kwargs.pop("other")] if "other" in kwargs else [])):
        if isinstance(value, Tensor):
            device, kwargs["dtype"] = _device(gpu, value), value.dtype
        elif isinstance(value, bool):
            kwargs[switches.pop(0)] = value
        elif isinstance(value, torch.dtype):
            kwargs["dtype"] = value
        elif value is not None:
            device = value
    waiting = not kwargs.pop("non_blocking", False)
    changed = tensor.to(**kwargs) if kwargs else tensor
    return changed if device is None else _moved(gpu, changed, torch.device(device), waiting)


def _moved(gpu: Gpu, tensor: Tensor, device: torch.device, waiting: bool = True) -> Tensor:
    if (device.type == "cuda") == on_gpu(tensor):
        return tensor
    if waiting or device.type != "cuda":
        gpu.wait("to gpu" if device.type == "cuda" else "from gpu")
    return _Moved.apply(tensor, device)


class _Moved(torch.autograd.Function):
    """A copy on the other device; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, device: torch.device) -> Tensor:
        return _copy(tensor, device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _copy(gradient, CPU if on_gpu(gradient) else CUDA), None


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    with _disable_current_modes():
        copy = tensor.detach().clone()
    return mark(copy) if device.type == "cuda" else copy


def _numpy(gpu: Gpu, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    if on_gpu(tensor):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")
    return tensor.numpy(*args, **kwargs)


def _tolist(gpu: Gpu, tensor: Tensor) -> Any:
    gpu.wait("number", on_gpu(tensor))
    return tensor.tolist()


def _new_tensor(gpu: Gpu, tensor: Tensor, data: Any, **kwargs: Any) -> Tensor:
    made = torch.tensor(data, dtype=kwargs.pop("dtype", tensor.dtype), **kwargs)
    gpu.wait("to gpu", on_gpu(tensor))
    return mark(made) if on_gpu(tensor) else made


_SPECIAL: Mapping[Any, Callable[..., Any]] = {
    Tensor.device.__get__: _device,
    Tensor.is_cuda.__get__: _is_cuda_tensor,
    Tensor.to: _to,
    Tensor.cpu: lambda gpu, tensor: _moved(gpu, tensor, CPU),
    Tensor.cuda: lambda gpu, tensor, *args, **kwargs: _moved(gpu, tensor, CUDA),
    Tensor.numpy: _numpy,
    Tensor.__array__: _numpy,
    Tensor.tolist: _tolist,
    Tensor.new_tensor: _new_tensor,
}
