"""Mask R-CNN, or Faster R-CNN, by Detectron2: configurations of its model zoo, its trainer.

The training data come from the same code as for the torchvision engine and reach Detectron2 as bitmasks, so nothing
is registered in its global catalogues.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import AMPTrainer, SimpleTrainer, create_ddp_model, hooks
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from torch import nn
from torch.utils.data import DataLoader

from stages.detector import detectron2_parts as parts
from stages.detector.data import Detection, Labels
from stages.detector.samples import TrainingSamples, scaled_size
from stages.detector.settings import DetectorPredictSettings, DetectorSettings
from stages.labels import coco, rle
from stages.labels.coco import Entry
from stages.runtime import devices, distributed, seeds
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_path
from stages.runtime.parallel import loader_count
from stages.runtime.precision import unmixed
from stages.runtime.settings import RuntimeSettings
from stages.runtime.stage import quiet_libraries
from stages.runtime.together import wait_for_all
from stages.runtime.weights import load_weights


def check(settings: DetectorSettings) -> None:
    """Make the configuration once."""
    config(settings, classes=1, device="cpu")
    for path in settings.weights_files():
        if not path.is_file():
            raise UserError(f"detector.detectron2.weights: no such file: {path}; give a file, 'imagenet' or 'none'")


def train(labels: Labels, settings: DetectorSettings, seed: int, runtime: RuntimeSettings, folder: Path) -> None:
    """Train in ``folder``, going on from its checkpoint, and leave ``model.pth`` and ``curves/`` there.

    Every process of the stage calls it, each on a device of its own.

    Raises:
        UserError: the configuration or the weights cannot be used, the batch cannot be shared, the loss is no number.
    """
    processes = distributed.world_size()
    if settings.train.batch_size % processes:
        raise UserError(f"detector.train.batch_size: {settings.train.batch_size} images cannot be shared evenly by "
                        f"{processes} processes (runtime.processes)")
    device = devices.resolve(runtime.device)
    if device.type != "cuda" and runtime.precision != "32-true" and distributed.rank() == 0:
        print(f"runtime.precision: Detectron2 has {runtime.precision} on CUDA only; it trains in 32-true here",
              flush=True)
    cfg = config(settings, len(labels.categories), str(device), labels.masks)
    wait_for_all()  # Detectron2 finds the group of processes that this makes
    _train(labels, settings, cfg, seed, runtime, folder)
    wait_for_all()  # or the first might take the checkpoint away before all have read it


def config(settings: DetectorSettings, classes: int, device: str, masks: bool = True) -> CfgNode:
    """Detectron2's configuration for these settings, with or without a mask head.

    Raises:
        UserError: the model zoo has no such configuration, or an override does not fit it.
    """
    chosen, schedule, predict = settings.detectron2, settings.train, settings.predict
    if not chosen.config.endswith(".yaml"):
        raise UserError(f"detector.detectron2.config: a .yaml of Detectron2's model zoo was expected, "
                        f"found {chosen.config!r}")
    try:
        cfg = model_zoo.get_config(chosen.config)
    except RuntimeError as error:
        raise UserError(f"detector.detectron2.config: {error}") from None
    cfg.MODEL.DEVICE = device
    cfg.MODEL.MASK_ON = masks
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = predict.score_threshold
    cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = predict.nms_threshold
    cfg.TEST.DETECTIONS_PER_IMAGE = predict.detections_per_image
    if chosen.weights != "imagenet":
        cfg.MODEL.WEIGHTS = "" if chosen.weights == "none" else chosen.weights
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = schedule.min_sides, schedule.max_side
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = predict.min_side, predict.max_side
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = not schedule.keep_empty
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER = schedule.batch_size, schedule.steps
    cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA = schedule.learning_rate, schedule.gamma
    cfg.SOLVER.MOMENTUM, cfg.SOLVER.WEIGHT_DECAY = schedule.momentum, schedule.weight_decay
    cfg.SOLVER.WARMUP_FACTOR, cfg.SOLVER.WARMUP_ITERS = 0.001, schedule.warmup_steps
    # Of a few steps two shares may fall on one, or on the end, which Detectron2 refuses and which changes nothing.
    falls = {round(share * schedule.steps) for share in schedule.milestones}
    cfg.SOLVER.STEPS = tuple(sorted(step for step in falls if 0 < step < schedule.steps))
    cfg.SOLVER.LR_SCHEDULER_NAME = {"cosine": "WarmupCosineLR", "milestones": "WarmupMultiStepLR"}[schedule.decay]
    try:
        cfg.merge_from_list([str(item) if index % 2 == 0 else item for index, item in enumerate(chosen.overrides)])
    except (KeyError, AssertionError, ValueError) as error:
        raise UserError(f"detector.detectron2.overrides: {str(error).splitlines()[0]}") from None
    cfg.freeze()
    return cfg


def _train(labels: Labels, settings: DetectorSettings, cfg: CfgNode, seed: int, runtime: RuntimeSettings,
           folder: Path) -> None:
    """The training of this process."""
    _quiet()
    torch.manual_seed(seeds.entropy(seed, "detector weights"))
    model = build_model(cfg)
    if settings.train.ignore_crowds:
        parts.IgnoreCrowds(model)
    optimizer = build_optimizer(cfg, model)
    device = torch.device(cfg.MODEL.DEVICE)
    wrapped = create_ddp_model(model, broadcast_buffers=False, find_unused_parameters=True,
                               device_ids=[device] if device.type == "cuda" else None)
    trainer = _trainer(wrapped, optimizer, runtime.precision, cfg.MODEL.DEVICE)
    scheduler = hooks.LRScheduler(optimizer, build_lr_scheduler(cfg, optimizer))
    # The scheduler's state is part of the trainer's: the hook is registered before the checkpoint is read.
    trainer.register_hooks([parts.SeedSteps(seed), scheduler])
    checkpointer = parts.Checkpointer(wrapped, str(folder), trainer=trainer)
    first = _start(checkpointer, cfg.MODEL.WEIGHTS, trainer)
    trainer.data_loader = _loader(labels, settings, seed, runtime, cfg, first)
    if settings.train.clip_gradients:
        trainer.register_hooks([parts.ClipGradients(model, settings.train.clip_gradients)])
    if comm.is_main_process():
        writer = parts.CurveWriter(folder / "curves", first, settings.train.steps)
        trainer.register_hooks([parts.ShowProgress(first, settings.train.steps, len(labels.images),
                                                    settings.train.batch_size),
                                hooks.PeriodicWriter([writer], period=1),
                                parts.SaveByTime(checkpointer, runtime.checkpoint_seconds)])
    try:
        trainer.train(first, settings.train.steps)
    except FloatingPointError as error:
        raise UserError(f"training the detector: {str(error).splitlines()[0]}; lower detector.train.learning_rate or "
                        f"use runtime.precision 32-true") from None
    if comm.is_main_process():
        with atomic_path(folder / "model.pth") as temporary, temporary.open("wb") as file:
            torch.save({"model": {name: value.cpu() for name, value in model.state_dict().items()}}, file)


def _quiet() -> None:
    """Notices of torch to the authors of Detectron2 are none of the user's business; errors are told once, by us."""
    quiet_libraries()
    warnings.filterwarnings("ignore", message=".*torch.meshgrid.*")
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    logging.getLogger("detectron2.engine.train_loop").setLevel(logging.CRITICAL)


def _trainer(model: nn.Module, optimizer: torch.optim.Optimizer, precision: str, device: str) -> SimpleTrainer:
    """Detectron2's trainer without data: the data start at the step that the checkpoint tells.

    Its mixed precision is for GPUs alone and refuses to start on a CPU, where a preset for GPUs is tried out.
    """
    if precision == "32-true" or not device.startswith("cuda"):
        return SimpleTrainer(model, None, optimizer)
    return AMPTrainer(model, None, optimizer, precision=torch.bfloat16 if precision == "bf16-mixed" else torch.float16)


def _start(checkpointer: parts.Checkpointer, weights: str, trainer: SimpleTrainer) -> int:
    """Load the last checkpoint, or the initial weights; gives the number of steps done."""
    if checkpointer.has_checkpoint():
        checkpointer.resume_or_load("", resume=True)
        return int(trainer.iter) + 1
    try:
        checkpointer.resume_or_load(weights, resume=False)
    except Exception as error:  # a file, a download or a format: Detectron2 raises many kinds
        raise UserError(f"detector.detectron2.weights: {weights} cannot be loaded ({str(error).splitlines()[0]}); give "
                        f"a .pth or .pkl file of Detectron2's, 'imagenet' (a download) or 'none'") from None
    return 0


def _loader(labels: Labels, settings: DetectorSettings, seed: int, runtime: RuntimeSettings, cfg: CfgNode,
            first: int) -> DataLoader:
    """This process's batches from step ``first`` on."""
    schedule, samples = settings.train, TrainingSamples(labels, settings.train)
    loaders = loader_count(runtime.workers, torch.device(cfg.MODEL.DEVICE).type)
    return DataLoader(
        parts.Drawn(samples, seed, cfg.INPUT.FORMAT == "BGR"),
        batch_sampler=parts.Batches(samples.turn, schedule.batch_size, seed, first, schedule.steps),  # type: ignore[arg-type]
        # A generator of its own: the loader would otherwise draw from torch's, in the first step after a start only.
        collate_fn=list, num_workers=loaders, generator=torch.Generator())


def load(weights: Path, settings: DetectorSettings, classes: int, predict: DetectorPredictSettings,
         runtime: RuntimeSettings, masks: bool = True) -> Predictor:
    """The trained network, ready to predict."""
    _quiet()
    cfg = config(settings.model_copy(update={"predict": predict}), classes, str(devices.resolve(runtime.device)), masks)
    model = build_model(cfg).eval()
    load_weights(weights, model, "model")
    return Predictor(model, cfg.INPUT.FORMAT == "BGR", predict)


class Predictor:
    """``predictor(image) -> detections``, see ``engines.Predictor``."""

    def __init__(self, model: Any, bgr: bool, predict: DetectorPredictSettings) -> None:
        self.model, self.bgr, self.predict = model, bgr, predict

    @torch.inference_mode()
    @unmixed()  # its pooling would round the corners of boxes, in float16 to whole pixels and in bfloat16 to four
    def __call__(self, image_hw3: np.ndarray) -> list[Detection]:
        height, width = image_hw3.shape[:2]
        high, wide = scaled_size(height, width, self.predict.min_side, self.predict.max_side)
        pixels = cv2.resize(image_hw3[:, :, ::-1] if self.bgr else image_hw3, (wide, high))
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float()
        raw = self.model.inference([{"image": image, "height": height, "width": width}], do_postprocess=False)[0]
        found = detector_postprocess(raw, height, width, self.predict.mask_threshold).to("cpu")
        masks = found.pred_masks.numpy() if found.has("pred_masks") else [None] * len(found)
        return [{"label": int(label), "score": float(score), "box_xyxy": box, "mask": mask}
                for label, score, box, mask in zip(found.pred_classes, found.scores, found.pred_boxes.tensor.numpy(),
                                                   masks, strict=True)]


def coco_evaluator_ap(truth: Path, results: Sequence[Entry]) -> dict[str, float]:
    """AP of COCO results by Detectron2's own COCOEvaluator, in percent: the check on this project's evaluation.

    Args:
        truth: COCO JSON; categories with ``isthing`` 0 are left out.
        results: as in predictions.json.

    Returns:
        Detectron2's ``segm`` figures: AP, AP50, AP75, APs, APm, APl and one AP-<class> per class.
    """
    content = coco.read_coco(truth)
    position = coco.category_indices(content["categories"], things_only=True)
    things = sorted((item for item in content["categories"] if item["id"] in position), key=lambda item: item["id"])
    with tempfile.TemporaryDirectory() as folder:
        name = f"weakmask {folder}"
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps({
            **content, "info": {}, "categories": things,
            "annotations": [item for item in content["annotations"] if item["category_id"] in position]}))
        MetadataCatalog.get(name).set(json_file=str(path), thing_classes=[item["name"] for item in things],
                                      thing_dataset_id_to_contiguous_id=position)
        try:
            evaluator = COCOEvaluator(name, tasks=("segm",), distributed=False)
            evaluator.reset()
            for image in content["images"]:
                found = [item for item in results if item["image_id"] == image["id"]]
                evaluator.process([{"image_id": image["id"]}], [{"instances": _instances(found, image, position)}])
            return {key: float(value) for key, value in evaluator.evaluate()["segm"].items()}
        finally:
            MetadataCatalog.remove(name)


def _instances(found: Sequence[Entry], image: Entry, position: Mapping[int, int]) -> Instances:
    """COCO results of one image as Detectron2's predictions."""
    shape = (image["height"], image["width"])
    instances = Instances(shape)
    boxes = np.array([item["bbox"] for item in found], np.float32).reshape(-1, 4)
    instances.pred_boxes = Boxes(torch.from_numpy(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)))
    instances.scores = torch.tensor([item["score"] for item in found], dtype=torch.float64)
    instances.pred_classes = torch.tensor([position[item["category_id"]] for item in found], dtype=torch.int64)
    masks = [rle.decode(item["segmentation"]) for item in found]
    instances.pred_masks = torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *shape), bool))
    return instances
