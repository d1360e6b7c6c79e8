"""What a chain's networks need: `check` builds each once, with no download, and looks whether downloads can be had.

Otherwise a mistyped layer, a stride that cannot be had or a file of another network's weights would be found when the
stage that wants it starts, which may be hours later.
"""

from __future__ import annotations

import importlib
import os
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import huggingface_hub
import timm
import torch
from pydantic import BaseModel

from pipelines.settings import methods_run
from stages.runtime import layout
from stages.runtime.errors import UserError

PATIENCE = 5.0
"""Seconds after which a server counts as out of reach; timm itself would try for 50."""
DETECTRON2_SERVER = "https://dl.fbaipublicfiles.com"
DETECTRON2_CACHE = Path(os.environ.get("FVCORE_CACHE", "~/.torch/iopath_cache")).expanduser() / "detectron2"
_CLASSES = 2  # any number: only the last layers have it
_Model = TypeVar("_Model", bound=BaseModel)


def check_networks(settings: SimpleNamespace) -> None:
    """Build every network of the methods that will run; weights of files are loaded, those of downloads are not.

    Raises:
        UserError: a network that cannot be made, with its key in params.yaml.
    """
    for method in methods_run(settings):
        if not (Path("pipelines") / method / "networks.py").exists():  # methods without networks
            continue
        builder = importlib.import_module(f"pipelines.{method}.networks")
        key = method
        try:
            # Shapes alone, no numbers: an HRNet's take seconds to draw. Weights of files are compared and not kept.
            with torch.device("meta"), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*meta parameter in the current model")
                built = builder.build(without_downloads(getattr(settings, method)), _CLASSES)
                while (following := next(built, None)) is not None:
                    key = following
        except UserError as error:
            raise UserError(f"{key}: {error}") from None
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{key}: no network can be made of these settings ({reason}); check the backbone's name, "
                            f"stride and arguments, and the layers that are named") from error


def without_downloads(settings: _Model) -> _Model:
    """The same settings with ``weights: none`` wherever they say ``imagenet``."""
    return _without(settings, lambda weights: weights == "imagenet")


def without_weights(settings: _Model) -> _Model:
    """The same settings with ``weights: none`` everywhere."""
    return _without(settings, lambda weights: True)


def _without(settings: _Model, dropped: Callable[[object], bool]) -> _Model:
    changes: dict[str, object] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name == "weights" and dropped(value):
            changes[name] = "none"
        elif isinstance(value, BaseModel):
            changes[name] = _without(value, dropped)
    return settings.model_copy(update=changes)


def check_downloads(settings: SimpleNamespace) -> list[str]:
    """Whether the weights that timm will download are in its cache, or their server answers.

    Returns:
        Warnings, where models of the method exist already: their training may not be wanted again.

    Raises:
        UserError: neither is so.
    """
    lost = out_of_reach(settings)
    if not lost:
        return []
    key, name = next(iter(lost.items()))
    message = (f"{key}.weights: imagenet: the weights of {name} are not in timm's cache, and {_server(name)} does not "
               f"answer within {PATIENCE:g} s; give the path of a weights file, or run where they can be downloaded")
    folder = layout.method_models(key.partition(".")[0])
    if folder.is_dir() and any(folder.iterdir()):
        return [message]
    raise UserError(message)


def out_of_reach(settings: SimpleNamespace) -> dict[str, str]:
    """Key -> timm name of every network of the methods that will run whose weights are neither in timm's cache nor to
    be downloaded: their server does not answer."""
    wanted = {key: name for method in methods_run(settings)
              for key, name in _downloads(getattr(settings, method, None), method)}
    missing = {key: name for key, name in wanted.items() if not _is_cached(name)}
    answers = {server: _answers(server) for server in {_server(name) for name in missing.values()}}
    return {key: name for key, name in missing.items() if not answers[_server(name)]}


def detector_out_of_reach(settings: SimpleNamespace) -> list[str]:
    """Keys of the detectors whose weights are neither on this machine nor to be downloaded."""
    engine = settings.detector.engine
    detectors = {"detector": settings.detector}
    if settings.method == "panoptic":
        detectors["panoptic.detector"] = settings.panoptic.detector
    found = []
    for key, detector in detectors.items():
        chosen = getattr(detector, engine)
        if chosen.weights != "imagenet":
            continue
        if engine == "torchvision":
            there = _is_cached(chosen.backbone) or _answers(_server(chosen.backbone))
        else:
            there = any(DETECTRON2_CACHE.glob("ImageNetPretrained/**/*.pkl")) or _answers(DETECTRON2_SERVER)
        found += [] if there else [f"{key}.{engine}"]
    return found


def _downloads(settings: object, where: str) -> Iterator[tuple[str, str]]:
    """(key, timm name) of every network below some settings whose weights are to be downloaded."""
    if not isinstance(settings, BaseModel):
        return
    if getattr(settings, "weights", None) == "imagenet" and hasattr(settings, "name"):
        yield where, settings.name
    for name in type(settings).model_fields:
        yield from _downloads(getattr(settings, name), f"{where}.{name}")


def _server(name: str) -> str:
    """Address of the server that has the weights."""
    source = timm.get_pretrained_cfg(name)
    if source is not None and isinstance(source.url, str) and source.url and not source.hf_hub_id:
        return "/".join(source.url.split("/")[:3])
    return huggingface_hub.constants.ENDPOINT


def _is_cached(name: str) -> bool:
    """Whether timm will find the weights on this machine."""
    source = timm.get_pretrained_cfg(name)
    if source is None:  # no such weights: building the network with them says so
        return True
    if source.hf_hub_id:
        return any(isinstance(huggingface_hub.try_to_load_from_cache(source.hf_hub_id, file), str)
                   for file in _files(source.hf_hub_filename))
    file = source.url.rpartition("/")[2] if isinstance(source.url, str) else ""
    return bool(file) and (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file()


def _files(own: str | None) -> Iterable[str]:
    return [own] if own else ("model.safetensors", "pytorch_model.bin")


def _answers(server: str) -> bool:
    """Whether a server answers at all; in a thread, as looking up a name has no time limit of its own."""
    if huggingface_hub.constants.HF_HUB_OFFLINE and server == huggingface_hub.constants.ENDPOINT:
        return False
    found: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(server, method="HEAD"), timeout=PATIENCE).close()
        except urllib.error.HTTPError:
            pass  # it refuses, so it is there
        except (OSError, ValueError):
            return
        found.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(found)
