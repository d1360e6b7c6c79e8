"""One way to train all networks: Fabric for devices and processes, checkpoints that lose nothing, DVCLive curves.

What makes a resumed run equal to an uninterrupted one: the order of the samples, the randomness of each sample and
the state of torch's generator are functions of (seed, epoch, index or step), not of what ran before.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import Precision
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from stages.runtime import devices, distributed, seeds
from stages.runtime.curves import Curves
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_path
from stages.runtime.optimisation import SCHEDULES, floored, make_optimizer, warmed_up
from stages.runtime.parallel import loader_count
from stages.runtime.progress import progress
from stages.runtime.settings import RuntimeSettings, TrainingSettings
from stages.runtime.together import wait_for_all
from stages.runtime.weights import State, save_weights, why_unreadable
from stages.runtime.work import Work

Batch = Any
Losses = Callable[[nn.Module, Batch], Mapping[str, Tensor]]


class Samples(Protocol):
    """What is trained on: ``sample`` may use no randomness but its generator's."""

    def __len__(self) -> int: ...

    def sample(self, index: int, generator: np.random.Generator) -> Batch: ...


class InTurn:
    """A number of samples that come round and round, so that a training can be counted in steps.

    Args:
        samples: what comes round; every one as often as the others, to within one.
        count: how many samples one pass has.
    """

    def __init__(self, samples: Samples, count: int) -> None:
        self.samples, self.count = samples, count

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int, generator: np.random.Generator) -> Batch:
        """Of the sample whose turn it is."""
        return self.samples.sample(index % len(self.samples), generator)


@dataclass
class Training:
    """What a method brings to a training; all else is written here.

    Attributes:
        model: its ``train()`` decides what stays frozen.
        losses: ``losses(model, batch) -> {"name": scalar}``; their sum is minimised, each is a curve.
        samples: see ``Samples``; the rest of an epoch that fills no batch is left out.
        groups: of the optimizer, each with its ``lr``; without them all parameters that want a gradient.
        extra_state: further modules whose state belongs into the checkpoint, e.g. a teacher.
        after_step: called with the number of steps done, e.g. to move a teacher.
        collate: list of samples to a batch; torch's default if none.
        state: what `weights.pt` shall hold; the model's state dict if none.
        finish: called on rank 0 after the training and before the weights are saved, the model in evaluation mode and
            without gradients: it may change buffers and write further files into the folder that it is given.
    """

    model: nn.Module
    losses: Losses
    samples: Samples
    groups: Sequence[Mapping[str, object]] | None = None
    extra_state: Mapping[str, nn.Module] = field(default_factory=dict)
    after_step: Callable[[int], None] | None = None
    collate: Callable[[list[Batch]], Batch] | None = None
    state: Callable[[], State] | None = None
    finish: Callable[[Path], None] | None = None


def train_stage(file: str, params: Path, settings: TrainingSettings, runtime: RuntimeSettings, seed: int,
                build: Callable[[torch.device], Training], *, inputs: Sequence[Path], parameters: object,
                output: Path, part: str = "") -> None:
    """The whole of a stage that trains: processes, device, work folder, training, weights, curves.

    Args:
        file: ``__file__`` of the stage's module.
        params: settings file, for further processes.
        settings: steps or epochs, optimizer and the like; with 0 of both the weights are those that the network starts
            from.
        runtime: device, precision, processes.
        seed: of the initial weights, the order, the samples.
        build: makes the training; called when the process's own device is the current one.
        inputs: files and folders that the result depends on.
        parameters: settings that it depends on beside ``settings``.
        output: folder that gets ``weights.pt``, ``curves/`` and what ``finish`` writes.
        part: of the stage, where it has several trainings (see ``Work``).
    """
    distributed.launch(file, params, runtime.processes)
    with Work(file, inputs, [seed, runtime.precision, settings, parameters], part=part) as work:
        train_network(work.folder, settings, runtime, seed, build, name=output.parts[-2:], description=work.stage)
        work.publish({"result": output})


def train_network(folder: Path, settings: TrainingSettings, runtime: RuntimeSettings, seed: int,
                  build: Callable[[torch.device], Training], *, name: Sequence[str], description: str) -> None:
    """The training of ``train_stage`` inside a work folder, for a stage that does more; it goes on where it was.

    Args:
        folder: holds the checkpoint, and gets ``result/`` (``weights.pt``, ``curves/`` and what ``finish`` writes) as
            the last thing; where that is there, nothing is left to do.
        settings, runtime, seed, build: as for ``train_stage``.
        name: of the network; its initial weights depend on the seed and on it.
        description: of the progress bar.
    """
    wait_for_all()  # the first process has tidied up the folder ...
    done = (folder / "result").exists()
    wait_for_all()  # ... and takes nothing away before all have looked
    if done:
        return
    device = devices.resolve(runtime.device)
    torch.manual_seed(seeds.entropy(seed, *name))
    training = build(device)
    model = training.model.to(device)
    learns = settings.epochs > 0 or settings.steps > 0
    if learns:
        groups = training.groups or [{"params": [value for value in model.parameters() if value.requires_grad],
                                      "lr": settings.learning_rate}]
        optimizer = make_optimizer(settings.optimizer, [dict(group) for group in groups], settings.learning_rate,
                                   settings.weight_decay, settings.momentum)
        batch_size = min(settings.batch_size, len(training.samples))
        samples = InTurn(training.samples, settings.steps * batch_size) if settings.steps else training.samples
        epochs, total = 1 if settings.steps else settings.epochs, total_steps(settings, len(training.samples))
        fit(model, training.losses, samples, optimizer, epochs=epochs, batch_size=batch_size,
            schedule=warmed_up(floored(SCHEDULES[settings.schedule], settings.floor), settings.warmup_steps, total),
            folder=folder, seed=seed, runtime=runtime, description=description, collate=training.collate,
            clip_norm=settings.clip_norm or None, after_step=training.after_step, extra_state=training.extra_state,
            sync_batch_norm=settings.sync_batch_norm)
    if distributed.rank() == 0:
        with atomic_path(folder / "result") as result:
            result.mkdir()
            model.eval()
            with torch.no_grad():
                if training.finish is not None:
                    training.finish(result)
            save_weights(result / "weights.pt", training.state() if training.state else model.state_dict())
            if learns:  # copied: a kill before the end finds the checkpoint's curves where they were
                shutil.copytree(folder / "curves", result / "curves")


def total_steps(settings: TrainingSettings, samples: int) -> int:
    """Length of a training on so many samples."""
    return settings.steps or settings.epochs * steps_per_epoch(samples, min(settings.batch_size, samples))


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

    def __getitem__(self, key: tuple[int, int]) -> Batch:
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
    collate: Callable[[list[Batch]], Batch] | None = None,
    clip_norm: float | None = None,
    after_step: Callable[[int], None] | None = None,
    extra_state: Mapping[str, nn.Module] | None = None,
    sync_batch_norm: bool = False,
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
        sync_batch_norm: batch statistics over all processes; on GPUs only, where torch can.

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
    if sync_batch_norm and distributed.world_size() > 1 and fabric.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place below the model; the parameters are the same
    wrapped, optimizer = fabric.setup(_Objective(model), optimizer)
    modules = {"model": model, **(extra_state or {})}
    for module in (extra_state or {}).values():
        module.to(fabric.device)
    scaler = fabric.strategy.precision  # has a state where gradients are scaled (16-mixed)
    hook = model.register_forward_hook(lambda module, inputs, output: scaler.convert_output(output))
    first, pending = _restore(folder / "checkpoint.pt", modules, optimizer, scaler, fabric.device)
    curves = Curves(folder / "curves", first, pending=pending) if fabric.global_rank == 0 else None
    loader = DataLoader(_Drawn(samples, seed), batch_sampler=_Batches(len(samples), batch_size, seed, first, total),  # type: ignore[arg-type]
                        collate_fn=collate, num_workers=loader_count(runtime.workers, fabric.device.type),
                        pin_memory=fabric.device.type == "cuda")
    count = len(samples.samples) if isinstance(samples, InTurn) else len(samples)
    batches = iter(loader) if fabric.global_rank else progress(loader, total, description, first, samples=count,
                                                               batch=batch_size)
    wrapped.train()
    saved = time.monotonic()
    for step, batch in enumerate(batches, start=first):
        torch.manual_seed(seeds.entropy(seed, "step", step, fabric.global_rank))
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * schedule(step / total)
        with fabric.autocast():
            terms = wrapped(partial(losses, model, _to_device(batch, fabric.device)))
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
                _save(folder / "checkpoint.pt", modules, optimizer, scaler, step + 1, curves.state())
                saved = time.monotonic()
    if curves is not None:
        curves.close()
    hook.remove()
    fabric.barrier()
    return model


class _Objective(nn.Module):
    """What several processes share the gradients of: ``objective(compute)`` gives the terms that ``compute`` makes with
    the model.

    DDP looks from what its module returns for the parameters that get no gradient. From the model's outputs it would
    not find those of an output that no term takes, as where a share of a batch shows no object.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        terms = dict(compute())
        if not any(term.requires_grad for term in terms.values()):  # the others wait for gradients, be they 0
            nothing = 0 * next(value for value in self.model.parameters() if value.requires_grad).sum()
            terms = {name: term + nothing for name, term in terms.items()}
        return terms


def _fabric(runtime: RuntimeSettings) -> Fabric:
    """Lightning Fabric on the wanted device; it finds ``torchrun``'s processes by itself."""
    world = distributed.world_size()
    device = devices.resolve(runtime.device)
    accelerator = device.type if device.type in ("cuda", "mps") else "cpu"
    chosen: list[int] | int = distributed.local_world_size()
    if world == 1:
        chosen = [device.index or 0] if device.type == "cuda" else 1
    # Parameters without a gradient are ordinary: a last layer that no pyramid takes, a term without an object.
    strategy = "ddp_find_unused_parameters_true" if world > 1 else "auto"
    fabric = Fabric(accelerator=accelerator, devices=chosen, strategy=strategy,
                    num_nodes=max(1, world // distributed.local_world_size()), precision=runtime.precision)
    fabric.launch()
    return fabric


def _to_device(batch: Batch, device: torch.device) -> Batch:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: _to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(_to_device(value, device) for value in batch)
    return batch


def _save(path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, scaler: Precision, step: int,
          pending: Mapping[str, list[float]]) -> None:
    # Through an open file, which names a full disk; torch's own says "unexpected pos".
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save({"step": step, "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict(),
                    "pending": dict(pending),
                    "modules": {name: module.state_dict() for name, module in modules.items()}}, file)


def _restore(path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, scaler: Precision,
             device: torch.device) -> tuple[int, dict[str, list[float]]]:
    """Load a checkpoint if there is one; gives the number of steps done, and the losses that no row holds yet."""
    if not path.exists():
        return 0, {}
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds here: pickle, zip, key and runtime errors
        raise UserError(f"{path}: cannot be read as a checkpoint ({why_unreadable(error)}); delete it, and the "
                        f"training begins anew") from None
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    optimizer.load_state_dict(state["optimizer"])
    if state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    return int(state["step"]), state["pending"]
