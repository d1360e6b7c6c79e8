"""Which engines there are, what they need, and about what they cost."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from stages.detector.data import Detection, Labels
from stages.detector.settings import DetectorPredictSettings, DetectorSettings
from stages.runtime.errors import UserError
from stages.runtime.settings import RuntimeSettings

INSTALL_DETECTRON2 = ('pip install --no-build-isolation "git+https://github.com/facebookresearch/detectron2.git'
                      '@02b5c4e295e990042a714712c21dc79b731e8833"')

LOADED_BY_NAME: dict[str, dict[str, str]] = {"detector.engine": {
    "torchvision": "stages.detector.torchvision_engine",
    "detectron2": "stages.detector.detectron2_engine",
}}
"""Setting -> its value -> the module that it loads: a stage depends on the code of the one that is chosen."""

_MODULES = LOADED_BY_NAME["detector.engine"]


class Predictor(Protocol):
    """A trained network."""

    def __call__(self, image_hw3: np.ndarray) -> list[Detection]:
        """Detections of one RGB image (H x W x 3, uint8), best first."""


class Engine(Protocol):
    """What an engine's module offers."""

    def check(self, settings: DetectorSettings) -> None:
        """Refuse a network that cannot be made from these settings (nothing is downloaded)."""

    def train(self, labels: Labels, settings: DetectorSettings, seed: int, runtime: RuntimeSettings,
              folder: Path) -> None:
        """Train in ``folder`` (going on from its checkpoint) and leave ``model.pth`` and ``curves/`` there.

        Where the labels are boxes alone, the network has no mask head.
        """

    def load(self, weights: Path, settings: DetectorSettings, classes: int,
             predict: DetectorPredictSettings, runtime: RuntimeSettings, masks: bool = True) -> Predictor:
        """The trained network, ready to predict; ``masks`` as the labels had them that it was trained on."""


def available_engines() -> dict[str, str]:
    """Every engine's name, and what is missing to use it (an empty string: nothing). Imports none of them."""
    missing = {name: "" for name in _MODULES}
    if importlib.util.find_spec("detectron2") is None:
        missing["detectron2"] = (f"Detectron2 is not installed; after torch and setuptools<81: {INSTALL_DETECTRON2}"
                                 f" (or set detector.engine: torchvision)")
    return missing


def engine(name: str) -> Engine:
    """The module of an engine.

    Raises:
        UserError: its library is not installed or cannot be imported; one line with the command that installs it.
    """
    problem = available_engines()[name]
    if problem:
        raise UserError(f"detector.engine: {problem}")
    try:
        return importlib.import_module(_MODULES[name])  # type: ignore[return-value]
    except ImportError as error:
        raise UserError(f"detector.engine: {name} is installed but cannot be imported ({error}); "
                        f"build it again for this torch: {INSTALL_DETECTRON2}") from None


def check(settings: DetectorSettings, section: str = "detector") -> None:
    """Make sure, before anything runs, that the chosen engine is there and can make the network.

    Args:
        settings: of the detector.
        section: where they stand in params.yaml.

    Raises:
        UserError: the engine is missing, or the backbone, its levels, its weights file or the configuration do not fit.
    """
    with named(section):
        engine(settings.engine).check(settings)


@contextmanager
def named(section: str) -> Iterator[None]:
    """Let errors name the settings of a detector by their place in params.yaml: a method may have a detector of its
    own, whose settings stand in another section than ``detector``."""
    try:
        yield
    except UserError as error:
        if section == "detector":
            raise
        raise UserError(re.sub(r"(?<![\w.])detector\.(?=\w)", f"{section}.", str(error))) from None
