"""The embedded data set: small rendered scenes with exact instance masks, from a seed.

Five thing classes stand, lie or float before sky and ground. Each class has one part of its own (dotted core, jewel,
striped cap, eye, pinwheel hub) that covers a small share of the object; the rest of the body takes its colour and its
texture from a pool that all classes share. A classifier therefore looks at the parts, so that thresholded class
attention maps cover parts of objects and merge touching neighbours of a class, as they do on photographs.

Measured over the 300 default images of one seed: 3.5 things of 2.1 classes per image; a class is in 37 to 44 % of the
images, sky in 85 %, ground in 93 %; longest sides 21, 37, 61 px (5, 50, 95 %); 45 % of the things touch one of their
class; 10 % are in several 4-connected parts (``python -m pytest -s -k intended tests/stages/prepare/test_shapes.py``
prints these for its own seed). The 64-bin RGB histograms of two classes overlap by 64 to 77 %, of a class and the
background by 42 to 59 %. Six 3 x 3 convolutions (stride 8, 24 to 96 channels) and global average pooling, trained from
scratch on 240 images for 40 epochs, reach a mAP over the thing classes of 0.95 on the 60 others; thresholded maps of
that network reach a mIoU of 0.54.

``shapes_scenes`` decides what is where, ``shapes_drawing`` puts it into pixels, ``shapes_rendering`` gives image and
truth.
"""

from __future__ import annotations

from pathlib import Path

from stages.labels.coco import Entry
from stages.prepare.settings import DatasetSettings
from stages.prepare.sources import Source, SourceImage

THINGS = ("disc", "ring", "bottle", "fish", "star")
SKY, GROUND = 11, 12
CATEGORIES: list[Entry] = [
    *({"id": number, "name": name, "isthing": 1} for number, name in enumerate(THINGS, 1)),
    {"id": SKY, "name": "sky", "isthing": 0},
    {"id": GROUND, "name": "ground", "isthing": 0},
]
_VAL_SCENES = 1_000_000  # scenes of val start here, so that more training images do not change them


def needed_paths(dataset: DatasetSettings) -> list[Path]:
    """What DVC tracks; the scenes are rendered from the settings alone."""
    return [Path(dataset.root)]


def read(dataset: DatasetSettings) -> Source:
    """The scenes of train and val, which do not depend on each other."""
    counts = {"train": (dataset.shapes.train, 0), "val": (dataset.shapes.val, _VAL_SCENES)}
    parts = {part: [SourceImage(first + number + 1, f"{part}_{number:05d}.png", scene=first + number)
                    for number in range(count)]
             for part, (count, first) in counts.items()}
    return Source([dict(category) for category in CATEGORIES], parts, dict.fromkeys(parts, Path("dataset.shapes")))
