"""What a training step holds in memory and how much it computes, counted without the device and the time that it takes.

The step runs on torch's fake tensors, which have a shape, a type and a place but no content; forward and backward pass
and the optimizer's step are those of the training, and every tensor is counted while it lives. What is not counted:
work space of convolutions, the allocator's fragments, and what CUDA keeps for itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from stages.runtime.optimisation import make_optimizer
from stages.runtime.precision import number_format


@dataclass(frozen=True)
class Data:
    """What a data set is to a network: numbers of its classes, and the size of its images [px]."""

    things: int
    stuff: int
    height: int
    width: int


@dataclass(frozen=True)
class Step:
    """One training's step, at the size that its settings give it.

    Attributes:
        name: of the training, as its stage or part has it.
        batch: samples of a step.
        build: makes the network, without weights.
        loss: ``loss(network, device)``: makes a batch there and gives the scalar that is minimised. No control flow may
            depend on the content of a tensor; where the training's own does, what stands for it is said there.
        optimizer: as ``optimisation.make_optimizer`` names it.
        momentum: of sgd; with 0 it has no state.
        copies: networks of the same size that a step holds beside this one, e.g. a teacher.
        held: bytes that are held at the peak and not counted [bytes].
    """

    name: str
    batch: int
    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module, torch.device], Tensor]
    optimizer: str
    momentum: float = 0.9
    copies: int = 0
    held: int = 0


@dataclass(frozen=True)
class StepMemory:
    """Bytes: the network's ``weights`` and buffers, what the forward pass leaves for the backward pass
    (``activations``, the batch included), ``gradients``, the optimizer's ``state``, and the most of all at one time
    (``peak``)."""

    weights: int
    activations: int
    gradients: int
    state: int
    peak: int


class LiveBytes(TorchDispatchMode):
    """Within the block: bytes of all tensors that were made in it and are still there, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and id(leaf.untyped_storage()) not in given:
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def gone(_: object) -> None:
            del self._known[key]
            self.now -= size

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


class _Attention(TorchFunctionMode):
    """Attention without a matrix of all pairs, as a GPU computes it; one that is not there has no such kernel."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {**dict(zip(("query", "key", "value", "attn_mask", "dropout_p"), args, strict=False)), **(kwargs or {})}
        if func is not functional.scaled_dot_product_attention or given.get("attn_mask") is not None:
            return func(*args, **(kwargs or {}))
        efficient = torch.ops.aten._scaled_dot_product_efficient_attention
        return efficient(given["query"], given["key"], given["value"], None, True, given.get("dropout_p", 0.0))[0]


def placed(network: nn.Module, mode: FakeTensorMode, device: torch.device) -> nn.Module:
    """A network of ``meta`` tensors with fake ones of a device in their place; tensors that it shares stay shared."""
    made: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
            made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
        return made[id(tensor)]

    with mode:
        for module in network.modules():
            for own in (module._parameters, module._buffers):
                for name, tensor in own.items():
                    if tensor is not None:
                        own[name] = fake(tensor)  # type: ignore[assignment]
    return network


def mixed(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """What ``runtime.precision`` means for a forward pass on a device, which need not be there."""
    chosen = number_format(precision, device)
    return nullcontext() if chosen is None else _casting(device.type, chosen)


@contextmanager
def _casting(kind: str, dtype: torch.dtype) -> Iterator[None]:
    """As ``torch.autocast``, which does nothing for a GPU that is not there."""
    before = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    torch.set_autocast_enabled(kind, True)
    torch.set_autocast_dtype(kind, dtype)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(kind, before[0])
        torch.set_autocast_dtype(kind, before[1])


def fake_network(step: Step, mode: FakeTensorMode, device: torch.device) -> nn.Module:
    """The step's network in training mode, on a device that need not be there, without content."""
    with torch.device("meta"):
        network = step.build()
    return placed(network, mode, device).train()


def pixels(count: int, height: int, width: int, device: torch.device) -> Tensor:
    """(count, 3, height, width) uint8: a batch of images of noise, so that a step can be run as well as counted."""
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, device=device)


def labels(low: int, high: int, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Whole numbers from ``low`` to ``high`` - 1, drawn."""
    return torch.randint(low, high, tuple(shape), dtype=dtype, device=device)


def step_memory(step: Step, precision: str = "32-true", device: str = "cuda") -> StepMemory:
    """Count one step.

    Args:
        step: what is trained.
        precision: as ``runtime.precision``.
        device: whose kernels and casts leave the activations; it need not be there. What the backward pass adds is
            always that of a CPU: of a GPU that is not there torch has the forward pass alone.
    """
    found = _counted_on_cpu(step, precision)
    if device == "cpu":
        return found
    place, mode = torch.device(device, 0), FakeTensorMode(allow_non_fake_inputs=False)
    network = fake_network(step, mode, place)
    with mode, LiveBytes() as live, mixed(precision, place), _Attention():
        loss = step.loss(network, place)
        activations = live.now + step.held
    assert loss.device == place
    return replace(found, activations=activations, peak=found.peak + activations - found.activations)


def step_operations(step: Step) -> int:
    """Floating-point operations of products and convolutions of a step, forward and backward; a teacher's included."""
    device, mode = torch.device("cpu"), FakeTensorMode(allow_non_fake_inputs=False)
    network = fake_network(step, mode, device)
    with mode, FlopCounterMode(display=False) as counter:
        torch.autograd.backward(step.loss(network, device))
    return int(counter.get_total_flops())


def _counted_on_cpu(step: Step, precision: str) -> StepMemory:
    device, mode = torch.device("cpu"), FakeTensorMode(allow_non_fake_inputs=False)
    network = fake_network(step, mode, device)
    weights = (1 + step.copies) * _size([*network.parameters(), *network.buffers()])
    learning = [value for value in network.parameters() if value.requires_grad]
    with mode, LiveBytes() as live:
        with mixed(precision, device):
            loss = step.loss(network, device)
        activations = live.now
        torch.autograd.backward(loss)
        del loss
        most, before = live.most, live.now
        optimizer = make_optimizer(step.optimizer, [{"params": learning}], 0.1, 0.1, step.momentum)
        optimizer.step()
        # Gradients are made anew at each step, the state is there from the second step on.
        state = live.now - before
    gradients = _size([value.grad for value in learning if value.grad is not None])
    return StepMemory(weights, activations + step.held, gradients, state, weights + state + most + step.held)


def _size(tensors: Iterable[Tensor]) -> int:
    return sum({id(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}.values())
