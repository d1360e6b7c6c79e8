"""What Detectron2's trainer is put together from: data, checkpoints, curves, hooks."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine.train_loop import HookBase
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage
from torch import Tensor, nn
from torch.utils.data import Dataset

from stages.detector.crowds import COVER, crowd_cover, outside_crowds
from stages.detector.samples import TrainingSamples
from stages.runtime import seeds
from stages.runtime.files import write_text
from stages.runtime.progress import progress
from stages.runtime.training import Curves

Sample = dict[str, Any]
"""An image as Detectron2's models take it."""


def to_detectron2(image: Tensor, target: dict[str, Tensor], bgr: bool) -> Sample:
    """A training sample in Detectron2's form: 0..255, its channel order, masks (if any) as bitmasks, classes from 0.

    Args:
        image: 3 x H x W, RGB, 0..1.
        target: see ``samples.TrainingSamples.sample``.
        bgr: whether the configuration's INPUT.FORMAT is BGR.
    """
    height, width = image.shape[-2:]
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(target["boxes"])
    instances.gt_classes = target["labels"] - 1
    if "masks" in target:
        instances.gt_masks = BitMasks(target["masks"].bool())
    sample = {"image": (image.flip(0) if bgr else image) * 255.0, "height": height, "width": width,
              "instances": instances}
    return sample | ({"crowd": target["crowd"]} if "crowd" in target else {})


class Drawn(Dataset):
    """Samples by running number: what is drawn depends on the seed and the number, not on the loader's processes."""

    def __init__(self, samples: TrainingSamples, seed: int, bgr: bool) -> None:
        self.samples, self.seed, self.bgr = samples, seed, bgr

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        number, index = key
        image, target = self.samples.sample(index, seeds.generator(self.seed, "sample", number))
        return to_detectron2(image, target, self.bgr)


class Batches:
    """This process's part of every batch from a step on: shuffled passes over ``images`` samples (of
    ``TrainingSamples``: one per image, or all of the training where images are repeated), one after another."""

    def __init__(self, images: int, batch_size: int, seed: int, first: int, last: int) -> None:
        self.images, self.batch_size, self.seed, self.first, self.last = images, batch_size, seed, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        orders: dict[int, np.ndarray] = {}
        for step in range(self.first, self.last):
            keys = []
            for number in range(step * self.batch_size, (step + 1) * self.batch_size):
                turn, position = divmod(number, self.images)
                if turn not in orders:
                    orders = {turn: seeds.generator(self.seed, "order", turn).permutation(self.images)} | {
                        old: order for old, order in orders.items() if old == turn - 1}
                keys.append((number, int(orders[turn][position])))
            yield keys[comm.get_rank()::comm.get_world_size()]


class _NumbersOnly(pickle.Unpickler):
    """Detectron2's model zoo stores arrays in pickles; this reads those and refuses everything that could run."""

    ALLOWED = {
        ("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode"),
        ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
    }

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array")
        return super().find_class(module, name)


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer that reads plain data only, and never leaves a half-written pointer."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        write_text(Path(self.save_dir) / "last_checkpoint", last_filename_basename)

    def get_checkpoint_file(self) -> str:
        return str(Path(self.save_dir) / (Path(self.save_dir) / "last_checkpoint").read_text().strip())

    def _torch_load(self, f: str) -> dict[str, object]:
        return torch.load(f, map_location="cpu", weights_only=True)

    def _load_file(self, filename: str) -> dict[str, object]:
        if not filename.endswith(".pkl"):
            return super()._load_file(filename)
        with open(filename, "rb") as file:
            data = _NumbersOnly(file, encoding="latin1").load()
        if "model" in data and "__author__" in data:
            return data
        blobs = data.get("blobs", data)
        return {"model": {name: value for name, value in blobs.items() if not name.endswith("_momentum")},
                "__author__": "Caffe2", "matching_heuristics": True}


class SaveByTime(HookBase):
    """A checkpoint every so many seconds and one at the end; the one before it goes when the new one is safe."""

    def __init__(self, checkpointer: Checkpointer, seconds: float) -> None:
        self.checkpointer, self.seconds = checkpointer, seconds
        self.saved = time.monotonic()

    def after_step(self) -> None:
        last = self.trainer.iter + 1 == self.trainer.max_iter
        if not last and time.monotonic() - self.saved < self.seconds:
            return
        name = f"checkpoint_{self.trainer.iter:07d}"
        self.checkpointer.save(name, iteration=self.trainer.iter)
        for old in Path(self.checkpointer.save_dir).glob("checkpoint_*.pth"):
            if old.stem != name:
                old.unlink()
        self.saved = time.monotonic()


class SeedSteps(HookBase):
    """Torch's generator before each step as a function of seed and step: a resumed run draws what it would have."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_step(self) -> None:
        torch.manual_seed(seeds.entropy(self.seed, "step", self.trainer.iter, comm.get_rank()))


class ShowProgress(HookBase):
    """The progress bar with the time left, as in every other stage."""

    def __init__(self, first: int, steps: int, samples: int, batch: int) -> None:
        self.bar = progress(range(first, steps), steps, "training the detector", first, samples=samples, batch=batch)

    def before_train(self) -> None:
        next(self.bar, None)

    def after_step(self) -> None:
        next(self.bar, None)


class ClipGradients(HookBase):
    """Limit the L2 norm of the whole gradient (Detectron2 itself clips per parameter)."""

    def __init__(self, model: nn.Module, largest: float) -> None:
        self.model, self.largest = model, largest

    def after_backward(self) -> None:
        scaler = getattr(self.trainer, "grad_scaler", None)
        if scaler is not None:
            scaler.unscale_(self.trainer.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.largest)


class CurveWriter(EventWriter):
    """Detectron2's losses and learning rate as DVCLive curves; called after every step, writes means of several."""

    def __init__(self, folder: Path, first: int, steps: int) -> None:
        self.curves, self.steps = Curves(folder, first), steps
        self.written = first - 1

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter <= self.written or storage.iter >= self.steps:
            return  # the trainer calls once more after the last step
        self.written = storage.iter
        latest = storage.latest()
        losses = {name: torch.tensor(value) for name, (value, _) in latest.items() if name.startswith("loss_")}
        self.curves.add(storage.iter, losses, float(latest["lr"][0]), last=storage.iter + 1 == self.steps)

    def close(self) -> None:
        self.curves.close()


class IgnoreCrowds:
    """Keep crowd regions out of a model's negatives: Detectron2 itself drops crowd annotations and trains on what is
    under them as background."""

    def __init__(self, model: nn.Module) -> None:
        self.crowds: list[Tensor | None] = []
        rpn: Any = model.proposal_generator
        heads: Any = model.roi_heads
        self._label_anchors = rpn.label_and_sample_anchors
        self._label_proposals = heads.label_and_sample_proposals
        rpn.label_and_sample_anchors = self.label_anchors
        heads.label_and_sample_proposals = self.label_proposals
        model.register_forward_pre_hook(self._remember)

    def _remember(self, model: nn.Module, arguments: tuple[list[Sample]]) -> None:
        device = next(model.parameters()).device
        crowds = [item.get("crowd") for item in arguments[0]]
        self.crowds = [None if crowd is None else crowd.to(device) for crowd in crowds]

    def label_anchors(self, anchors: list[Boxes], instances: list[Instances]) -> tuple[list[Tensor], list[Tensor]]:
        labels, boxes = self._label_anchors(anchors, instances)
        everywhere = Boxes.cat(anchors).tensor
        for label, crowd, objects in zip(labels, self.crowds, instances, strict=True):
            if crowd is not None and len(objects):
                label[(label == 0) & (crowd_cover(crowd, everywhere) > COVER)] = -1
        return labels, boxes

    def label_proposals(self, proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
        kept = [found if crowd is None
                else found[outside_crowds(crowd, found.proposal_boxes.tensor, objects.gt_boxes.tensor)]
                for found, crowd, objects in zip(proposals, self.crowds, targets, strict=True)]
        return self._label_proposals(kept, targets)
