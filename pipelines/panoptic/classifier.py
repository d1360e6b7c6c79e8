"""The multi-label classifier of fixed crops (appendix B.2), and where it sees stuff (section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.panoptic.settings import CropClassifierSettings, StuffSettings
from pipelines.panoptic.supervision import Classes
from stages.cues.augment import OUTSIDE, jitter
from stages.cues.backbone import Grid, grid_of, resample_output
from stages.cues.classification import mean_average_precision
from stages.cues.classifier import grad_cam_maps
from stages.cues.views import to_tensor
from stages.labels.coco import Entry
from stages.labels.images import read_rgb
from stages.labels.tag_crops import TagCrop, tag_crops
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from stages.runtime.precision import unmixed
from stages.runtime.training import Training
from stages.runtime.walk import ahead
from stages.runtime.weights import load_weights
from stages.segmentation.network import DenseFeatures


class CropClassifier(nn.Module):
    """The segmentation network's features, global average pooling, one layer.

    Behind the mean over the cells a linear layer follows, so Grad-CAM is ReLU(CAM) up to a factor.

    Args:
        settings: of the network.
        classes: how many, things and stuff.
    """

    def __init__(self, settings: CropClassifierSettings, classes: int) -> None:
        super().__init__()
        self.body = DenseFeatures(settings)
        self.head = nn.Linear(self.body.width, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.scale = settings.logit_scale
        self.train()

    @property
    def grid(self) -> Grid:
        """Where the cells of the features lie."""
        return self.body.grid

    def classify(self, features: Tensor) -> Tensor:
        """(N, C, h, w) to logits (N, classes)."""
        return self.scale * self.head(features.mean(dim=(2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W), uint8 or float in 0..1, to class logits (N, classes)."""
        return self.classify(self.body.features(images))


class TaggedCrops:
    """The fixed crops of images with their tags, always whole: a random part would tell where in its crop a class is.

    Args:
        images: of the weak annotations.
        category_ids: of the classes, in their order.
        settings: flip and jitter.
    """

    def __init__(self, images: Sequence[Entry], category_ids: Sequence[int], settings: CropClassifierSettings) -> None:
        self.crops = [(image, crop) for image in images for crop in tag_crops(image)]
        self.targets = crop_targets([crop for _, crop in self.crops], category_ids)
        self.settings = settings

    def __len__(self) -> int:
        return len(self.crops)

    def sample(self, index: int, generator: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, h, w) uint8 and ``target`` (classes,) float."""
        image, crop = self.crops[index]
        pixels = cut(read_rgb(layout.IMAGES / image["file_name"]), crop)
        if self.settings.flip and generator.random() < 0.5:
            pixels = pixels[:, ::-1]
        if self.settings.jitter:
            pixels = jitter(pixels, generator, self.settings.jitter)
        return {"image": to_tensor(pixels), "target": torch.from_numpy(self.targets[index])}


def crop_targets(crops: Sequence[TagCrop], category_ids: Sequence[int]) -> np.ndarray:
    """(crops, classes) float32: 1 where a crop's tags hold the class."""
    return np.array([[category in crop.tags for category in category_ids] for crop in crops],
                    np.float32).reshape(len(crops), len(category_ids))


def cut(pixels: np.ndarray, crop: TagCrop) -> np.ndarray:
    """The part of an image (H, W, ...) that a crop shows."""
    left, top, right, bottom = crop.xyxy
    return pixels[top:bottom, left:right]


def collate(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Crops of any sizes as one batch: at the end of smaller ones stands the mean colour."""
    height, width = (max(sample["image"].shape[side] for sample in samples) for side in (-2, -1))
    images = torch.tensor(OUTSIDE, dtype=torch.uint8)[None, :, None, None].repeat(len(samples), 1, height, width)
    for place, sample in zip(images, samples, strict=True):
        place[:, :sample["image"].shape[-2], :sample["image"].shape[-1]] = sample["image"]
    return {"image": images, "target": torch.stack([sample["target"] for sample in samples])}


def tag_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Binary cross-entropy, the mean over the classes (eq. 6)."""
    return {"classification": functional.binary_cross_entropy_with_logits(model(batch["image"]).float(),
                                                                          batch["target"])}


def classifier_training(weak: Mapping[str, Entry], settings: CropClassifierSettings, classes: Classes) -> Training:
    """The training on the crops of train; it leaves ``classifier.json`` and ``metrics.json`` beside the weights.

    Args:
        weak: weak annotations by split.
        settings: of network and training.
        classes: of the data set; things and stuff are learnt.

    Raises:
        UserError: no crop has a tag of stuff.
    """
    samples = TaggedCrops(weak["train"]["images"], classes.category_ids, settings)
    if not samples.targets[:, [channel - 1 for channel in classes.stuff]].any():
        raise UserError(f"{layout.WEAK['train']}: no image has a tag of stuff; the classifier learns from tags, so the "
                        f"annotations need them (annotations.kinds: [boxes, tags])")
    model = CropClassifier(settings, len(classes.category_ids))

    def finish(folder: Path) -> None:
        write_json(folder / "classifier.json", {"category_ids": list(classes.category_ids)}, indent=2)
        write_json(folder / "metrics.json", measure(model, weak, classes), indent=2)

    return Training(model, tag_loss, samples, collate=collate, finish=finish)


def measure(model: CropClassifier, weak: Mapping[str, Entry], classes: Classes) -> dict[str, Entry]:
    """Mean average precision on the crops of each split in percent, and per class on val; tags are what is right."""
    device = next(model.parameters()).device
    names = {category["id"]: category["name"] for category in weak["train"]["categories"]}
    found: dict[str, Entry] = {}
    for split, content in weak.items():
        rows, crops = [], []
        for image, pixels in ahead(content["images"], lambda image: read_rgb(layout.IMAGES / image["file_name"]),
                                   f"crops of {split}", part=split):
            for crop in tag_crops(image):
                crops.append(crop)
                rows.append(model(to_tensor(cut(pixels, crop))[None].to(device))[0].float().cpu().numpy())
        precision = mean_average_precision(np.array(rows), crop_targets(crops, classes.category_ids)) if rows else {}
        if not precision:
            found[split] = {"available": 0, "reason": f"no crop of {layout.WEAK[split]} has a tag of these classes"}
            continue
        found[split] = {"map": round(100 * sum(precision.values()) / len(precision), 3)}
        if split == "val":
            found[split]["per_class"] = {names[classes.category_ids[index]]: round(100 * value, 3)
                                         for index, value in precision.items()}
    return found


def load_classifier(folder: Path, settings: CropClassifierSettings, classes: Classes, device: torch.device
                    ) -> CropClassifier:
    """The trained classifier, in evaluation mode.

    Raises:
        UserError: a file is missing, or the weights are of other classes or another network.
    """
    known = read_json(folder / "classifier.json")["category_ids"]
    if known != list(classes.category_ids):
        raise UserError(f"{folder}: trained on the categories {known}, the data set has {list(classes.category_ids)}; "
                        f"run `dvc repro` again")
    backbone = settings.backbone.model_copy(update={"weights": "none"})
    model = CropClassifier(settings.model_copy(update={"backbone": backbone}), len(classes.category_ids))
    load_weights(folder / "weights.pt", model)
    return model.to(device).eval()


def stuff_inference(folder: Path, settings: CropClassifierSettings, chosen: StuffSettings, classes: Classes,
                    device: torch.device) -> Callable[[str, Entry, Tensor], dict[str, np.ndarray]]:
    """What gives the cues of stuff of one image, for a walk over images.

    Args:
        folder: of the trained classifier.
        settings: of the classifier.
        chosen: of the maps.
        classes: of the data set.
        device: where it runs.

    Returns:
        A function of the sub-folder (of no account here), a COCO image and its pixels (3, H, W) uint8, which gives
        ``channels`` (K,) int64, the tagged stuff of its crops, and ``maps`` (K, ceil(H / grid), ceil(W / grid))
        float16, the maximum in each crop that has the tag 1, 0 where no crop has it; ``stride`` () int64 of the cells.
    """
    model = load_classifier(folder, settings, classes, device)

    def infer(name: str, image: Entry, pixels: Tensor) -> dict[str, np.ndarray]:
        return stuff_maps(model, pixels.to(device), tag_crops(image), classes, chosen.grid)

    return infer


def stuff_maps(model: CropClassifier, pixels: Tensor, crops: Sequence[TagCrop], classes: Classes, stride: int
               ) -> dict[str, np.ndarray]:
    """Grad-CAM crop by crop; where crops overlap the larger value counts. See ``stuff_inference``."""
    tagged = sorted({classes.channel(tag) for crop in crops for tag in crop.tags if tag in classes.category_ids}
                    & set(classes.stuff))
    grid = grid_of(stride)
    rows, columns = (-(-side // stride) for side in pixels.shape[-2:])
    maps = torch.zeros(len(tagged), rows, columns)
    for crop in crops:
        own = [channel for channel in tagged if classes.category(channel) in crop.tags]
        left, top, right, bottom = crop.xyxy
        y, x = _cells(top, bottom, grid, pixels.shape[-2]), _cells(left, right, grid, pixels.shape[-1])
        if not own or not y or not x:
            continue
        with torch.inference_mode(False), torch.enable_grad():
            with torch.no_grad():
                shown = model.body.features(pixels[None, :, top:bottom, left:right].clone())
            features = shown.float().requires_grad_()
            with unmixed():
                logits = model.classify(features)
            found = grad_cam_maps(features, logits, [channel - 1 for channel in own])
        found = found / found.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
        down, across = (Grid(grid.stride, grid.origin + grid.stride * first - start)
                        for first, start in ((y.start, top), (x.start, left)))
        placed = resample_output(found[None], model.grid, down, (len(y), len(x)), (model.grid, across))[0].cpu()
        for channel, values in zip(own, placed, strict=True):
            part = maps[tagged.index(channel), y.start:y.stop, x.start:x.stop]
            torch.maximum(part, values, out=part)
    return {"channels": np.array(tagged, np.int64), "maps": maps.numpy().astype(np.float16),
            "stride": np.array(stride, np.int64)}


def _cells(start: int, end: int, grid: Grid, side: int) -> range:
    """The cells whose centre lies in a crop along one side of an image; one that hangs over the image counts to its
    last pixel."""
    count = -(-side // int(grid.stride))
    centres = np.minimum(grid.origin + grid.stride * np.arange(count), side - 1)
    inside = np.flatnonzero((centres >= start - 0.5) & (centres < end - 0.5))
    return range(int(inside[0]), int(inside[-1]) + 1) if len(inside) else range(0)
