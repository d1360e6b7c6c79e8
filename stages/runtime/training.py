"""One training loop for all networks: Fabric for devices and processes, checkpoints that lose nothing, DVCLive curves.

What makes a resumed run equal to an uninterrupted one: the order of the samples, the randomness of each sample and
the state of torch's generator are functions of (seed, epoch, index or step), not of what ran before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from stages.runtime import devices, distributed, seeds
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_path, write_text
from stages.runtime.parallel import worker_count
from stages.runtime.progress import progress
from stages.runtime.settings import RuntimeSettings

Batch = Any
Losses = Callable[[nn.Module, Batch], Mapping[str, Tensor]]


class Samples(Protocol):
    """What is trained on: ``sample`` may use no randomness but its generator's."""

    def __len__(self) -> int: ...

    def sample(self, index: int, generator: np.random.Generator) -> Any: ...


def polynomial(power: float = 0.9) -> Callable[[float], float]:
    """Learning-rate factor (1 - progress)^power, as IRNet's paper decays it (section 6.1)."""
    return lambda done: (1.0 - min(done, 1.0)) ** power


def one_cycle(warm_up: float = 0.3) -> Callable[[float], float]:
    """Learning-rate factor that rises along half a cosine for a share of the steps, then falls to 0 along another."""

    def factor(done: float) -> float:
        if done < warm_up:
            return 0.04 + 0.96 * 0.5 * (1.0 - float(np.cos(np.pi * done / warm_up)))
        return 0.5 * (1.0 + float(np.cos(np.pi * min((done - warm_up) / (1.0 - warm_up), 1.0))))

    return factor


def cosine(floor: float = 0.0) -> Callable[[float], float]:
    """Learning-rate factor that falls from 1 to ``floor`` along half a cosine."""
    return lambda done: floor + (1.0 - floor) * 0.5 * (1.0 + float(np.cos(np.pi * min(done, 1.0))))


SCHEDULES = {"polynomial": polynomial(0.9), "one_cycle": one_cycle(), "cosine": cosine()}


def make_optimizer(kind: str, groups: Iterable[Any], rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """``sgd`` (momentum 0.9) or ``adamw`` over parameters or parameter groups."""
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=weight_decay)
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=weight_decay)


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Full batches in one pass over the samples, at least one."""
    return max(1, samples // batch_size)


def order(seed: int, epoch: int, samples: int) -> np.ndarray:
    """The order in which an epoch visits the samples: a permutation of 0..samples-1."""
    return seeds.generator(seed, "order", epoch).permutation(samples)


class _Drawn(Dataset):
    """Samples addressed by (epoch, index), so that loader processes need no state."""

    def __init__(self, samples: Samples, seed: int) -> None:
        self.samples, self.seed = samples, seed

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        return self.samples.sample(index, seeds.generator(self.seed, "sample", epoch, index))


class _Batches:
    """Batches of (epoch, index) from a given step on; each rank takes every world-size-th sample of a batch."""

    def __init__(self, samples: int, batch_size: int, seed: int, first: int, last: int) -> None:
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.first, self.last = first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = steps_per_epoch(self.samples, self.batch_size)
        drawn, permutation = -1, np.empty(0, int)
        for step in range(self.first, self.last):
            epoch, position = divmod(step, per_epoch)
            if epoch != drawn:
                drawn, permutation = epoch, order(self.seed, epoch, self.samples)
            indices = permutation[position * self.batch_size:][:self.batch_size]
            yield [(epoch, int(index)) for index in indices[distributed.rank()::distributed.world_size()]]


def fit(
    model: nn.Module,
    losses: Losses,
    samples: Samples,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    schedule: Callable[[float], float],
    folder: Path,
    seed: int,
    runtime: RuntimeSettings,
    description: str,
    collate: Callable[[list[Any]], Any] | None = None,
    clip_norm: float | None = None,
    after_step: Callable[[int], None] | None = None,
    extra_state: Mapping[str, nn.Module] | None = None,
) -> nn.Module:
    """Train ``model`` in place and leave a checkpoint and curves in ``folder``; goes on from the checkpoint if any.

    Args:
        model: its ``train()`` decides what stays frozen.
        losses: ``losses(model, batch) -> {"name": scalar}``; their sum is minimised, each is a curve.
        samples: see ``Samples``; the rest of an epoch that fills no batch is left out.
        optimizer: over the model's parameters.
        epochs, batch_size: of the whole training, over all processes.
        schedule: factor on every learning rate from the share of steps done (0..1).
        folder: keeps ``checkpoint.pt`` and ``curves/``.
        seed: of the order, the samples and torch's generator.
        runtime: device, precision, processes, seconds between checkpoints.
        description: of the progress bar.
        collate: list of samples to a batch; torch's default if none.
        clip_norm: largest gradient norm, if any.
        after_step: called with the number of steps done, e.g. to move an EMA teacher.
        extra_state: further modules whose state belongs into the checkpoint.

    Returns:
        ``model``, on the training device.

    Raises:
        UserError: a loss that is not finite, with its name and step; a batch smaller than the processes.
    """
    if min(batch_size, len(samples)) < distributed.world_size():
        raise UserError(f"{description}: {len(samples)} samples in batches of {batch_size} cannot be shared by "
                        f"{distributed.world_size()} processes")
    fabric = _fabric(runtime)
    per_epoch = steps_per_epoch(len(samples), batch_size)
    total = epochs * per_epoch
    base_rates = [group["lr"] for group in optimizer.param_groups]
    wrapped, optimizer = fabric.setup(model, optimizer)
    modules = {"model": model, **(extra_state or {})}
    for module in (extra_state or {}).values():
        module.to(fabric.device)
    first = _restore(folder / "checkpoint.pt", modules, optimizer, fabric.device)
    curves = Curves(folder / "curves", first) if fabric.global_rank == 0 else None
    # Loader processes pay where the device waits for the CPU; on a CPU they would only compete with the training.
    loaders = worker_count(runtime.workers) if fabric.device.type == "cuda" else 0
    loader = DataLoader(_Drawn(samples, seed), batch_sampler=_Batches(len(samples), batch_size, seed, first, total),  # type: ignore[arg-type]
                        collate_fn=collate, num_workers=loaders, pin_memory=fabric.device.type == "cuda")
    batches = progress(loader, total, description, first) if fabric.global_rank == 0 else iter(loader)
    wrapped.train()
    saved = time.monotonic()
    for step, batch in enumerate(batches, start=first):
        torch.manual_seed(seeds.entropy(seed, "step", step, fabric.global_rank))
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * schedule(step / total)
        with fabric.autocast():
            terms = losses(wrapped, _to_device(batch, fabric.device))
            loss = torch.stack([term.float() for term in terms.values()]).sum()
        if not torch.isfinite(loss):
            values = {name: float(term.detach()) for name, term in terms.items()}
            raise UserError(f"{description}: the loss is not finite at step {step} ({values}); "
                            f"lower the learning rate or use runtime.precision 32-true")
        fabric.backward(loss)
        if clip_norm is not None:
            fabric.clip_gradients(wrapped, optimizer, max_norm=clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if after_step is not None:
            after_step(step + 1)
        if curves is not None:
            curves.add(step, terms, optimizer.param_groups[0]["lr"], last=step + 1 == total)
            if time.monotonic() - saved > runtime.checkpoint_seconds or step + 1 == total:
                _save(folder / "checkpoint.pt", modules, optimizer, step + 1)
                saved = time.monotonic()
    if curves is not None:
        curves.close()
    fabric.barrier()
    return model


def _fabric(runtime: RuntimeSettings) -> Any:
    """Lightning Fabric on the wanted device; it finds ``torchrun``'s processes by itself."""
    from lightning.fabric import Fabric

    world = distributed.world_size()
    kind = devices.resolve(runtime.device).type
    accelerator = {"cuda": "cuda", "mps": "mps"}.get(kind, "cpu")
    chosen: Any = world
    if world == 1 and kind == "cuda" and ":" in runtime.device:
        chosen = [int(runtime.device.split(":")[1])]
    fabric = Fabric(accelerator=accelerator, devices=chosen, strategy="ddp" if world > 1 else "auto",
                    precision=runtime.precision)
    fabric.launch()
    return fabric


def _to_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: _to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(_to_device(value, device) for value in batch)
    return batch


def _save(path: Path, modules: Mapping[str, nn.Module], optimizer: Any, step: int) -> None:
    with atomic_path(path) as temporary:
        torch.save({"step": step, "optimizer": optimizer.state_dict(),
                    "modules": {name: module.state_dict() for name, module in modules.items()}}, temporary)


def _restore(path: Path, modules: Mapping[str, nn.Module], optimizer: Any, device: torch.device) -> int:
    """Load a checkpoint if there is one; gives the number of steps done."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


class Curves:
    """Losses and learning rate by step, as DVCLive writes them and ``dvc plots`` shows them."""

    def __init__(self, folder: Path, first: int, every: int = 10) -> None:
        from dvclive import Live

        self.every = every
        self.sums: dict[str, float] = {}
        self.count = 0
        for table in folder.glob("plots/metrics/**/*.tsv"):
            _cut(table, first)
        self.live = Live(dir=str(folder), resume=first > 0, save_dvc_exp=False, dvcyaml=None, report=None)

    def add(self, step: int, terms: Mapping[str, Tensor], rate: float, last: bool) -> None:
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(term.detach())
        self.count += 1
        if (step + 1) % self.every and not last:
            return
        self.live.step = step
        for name, value in self.sums.items():
            self.live.log_metric(name, value / self.count, timestamp=False)
        self.live.log_metric("learning_rate", rate, timestamp=False)
        self.live.make_summary()
        self.sums, self.count = {}, 0

    def close(self) -> None:
        self.live.end()


def _cut(table: Path, first: int) -> None:
    """Drop the rows that a killed run wrote after its last checkpoint."""
    head, *rows = table.read_text().splitlines() or ["step"]
    names = head.split("\t")
    column = names.index("step")
    # A kill may have cut the last row short.
    whole = [row for row in rows if row.count("\t") == len(names) - 1 and row.split("\t")[column].isdigit()]
    kept = [row for row in whole if int(row.split("\t")[column]) < first]
    write_text(table, "\n".join([head, *kept]) + "\n")
