"""A data set of a few tiny scenes with non-contiguous category ids, a crowd, an empty and a grey image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import yaml

from stages.labels import coco
from stages.runtime import layout

HEIGHT, WIDTH = 40, 48
CATEGORIES = [
    {"id": 90, "name": "disc", "isthing": 1},
    {"id": 7, "name": "box", "isthing": 1},
    {"id": 200, "name": "sky", "isthing": 0},
]

TINY = {
    "engine": "torchvision",
    "train": {"steps": 4, "batch_size": 2, "learning_rate": 0.002, "warmup_steps": 2, "decay": "cosine",
              "min_sides": [40], "max_side": 48},
    "predict": {"min_side": 40, "max_side": 48, "score_threshold": 0.0, "detections_per_image": 4},
    "torchvision": {
        "backbone": "resnet18", "backbone_arguments": {"channels": [8, 8, 8, 8], "stem_width": 8}, "weights": "none",
        "levels": [4, 8], "extra_level": False, "batch_norm": "train", "fpn_channels": 8, "anchor_sizes": [12, 24],
        "rpn_samples": 16, "proposals": 16, "roi_samples": 8, "box_head_channels": 16, "mask_head_channels": [8],
        "head_norm": "group", "optimizer": "adamw"},
    "detectron2": {"weights": "none", "overrides": [
        "MODEL.RESNETS.WIDTH_PER_GROUP", 4, "MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 8,
        "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.FPN.OUT_CHANNELS", 8,
        "MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.ROI_MASK_HEAD.CONV_DIM", 8, "MODEL.ROI_MASK_HEAD.NUM_CONV", 1,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 32]},
}


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:top + side, left:left + side] = True
    return mask


def write_dataset(images: int = 4) -> None:
    """Images 11, 12, ... with one disc and one box each; the last is empty, the second grey, the first has a crowd."""
    layout.IMAGES.mkdir(parents=True)
    rng = np.random.default_rng(0)
    entries, annotations = [], []
    for index in range(images):
        pixels = rng.integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        entry = {"id": 11 + index, "file_name": f"{index}.png", "width": WIDTH, "height": HEIGHT}
        entries.append(entry)
        sky = square(0, 0, 2)
        annotations.append({"image_id": entry["id"], "category_id": 200, "segmentation": sky})
        if index < images - 1:
            masks = {90: square(4 + index, 6, 12), 7: square(20, 26, 14)}
            for category, mask in masks.items():
                pixels[mask] = (200, 60, 60) if category == 90 else (60, 60, 200)
                annotations.append({"image_id": entry["id"], "category_id": category, "segmentation": mask})
        if index == 0:
            annotations.append({"image_id": entry["id"], "category_id": 90, "segmentation": square(0, 36, 10),
                                "iscrowd": 1})
        cv2.imwrite(str(layout.IMAGES / entry["file_name"]), pixels if index != 1 else pixels.mean(2).astype(np.uint8))
    coco.write_instances(layout.pseudo_labels("irnet"), entries, CATEGORIES, annotations)
    weak = [{**entry, "tags": []} for entry in entries]
    coco.write_instances(layout.WEAK["val"], weak, CATEGORIES, [])
    coco.write_instances(layout.TRUTH["val"], entries, CATEGORIES, annotations)


def write_params(engine: str = "torchvision", steps: int = 4, **runtime: object) -> Path:
    detector = {**TINY, "engine": engine, "train": {**TINY["train"], "steps": steps}}
    path = Path("params.yaml")
    path.write_text(yaml.safe_dump({"method": "irnet", "seed": 3, "detector": detector,
                                    "runtime": {"device": "cpu", "workers": 1, **runtime}}))
    return path
