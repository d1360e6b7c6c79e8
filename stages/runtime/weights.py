"""Trained weights on disk: the same bytes for the same numbers, and nothing missing in silence."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stages.runtime.errors import UserError
from stages.runtime.files import atomic_path

State = Mapping[str, Tensor] | Mapping[str, Mapping[str, Tensor]]


def save_weights(path: Path, state: State) -> None:
    """Write a state dict, or several by name, on the CPU, atomically.

    ``torch.save`` to a path writes that path's name into the file; through an open file the bytes depend on the
    numbers alone.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(_on_cpu(state), file)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        # A view would be stored with all of what it is a view of.
        return value.detach().cpu().contiguous().clone()
    return {name: _on_cpu(item) for name, item in value.items()}


def load_weights(path: Path, module: nn.Module, name: str | None = None, without: str | None = None) -> None:
    """Load what ``save_weights`` wrote into a module of the same structure.

    Args:
        path: the file.
        module: takes the weights, on whatever device it is.
        name: entry of the file, where it holds several networks.
        without: prefix of the parameters that the file leaves out because they are kept elsewhere, e.g. ``backbone.``.

    Raises:
        UserError: the file is missing or unreadable, or anything is missing, superfluous or of another shape.
    """
    remedy = f"delete {path.parent} and run `dvc repro` again"
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the stage that writes it has not run (`dvc repro`)") from None
    except Exception as error:  # torch raises many kinds here: pickle, zip, key and runtime errors
        raise UserError(f"{path}: cannot be read as weights ({why_unreadable(error)}); {remedy}") from None
    if name is not None:
        state = state.get(name) if isinstance(state, dict) else None
    own = {key: value for key, value in module.state_dict().items() if without is None or not key.startswith(without)}
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: {f'no network {name!r} in it' if name else 'no state dict'}; {remedy}")
    problems = [f"{key} is missing" for key in own if key not in state]
    problems += [f"{key} is unknown" for key in state if key not in own]
    problems += [f"{key} has the shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}" for key in own
                 if key in state and state[key].shape != own[key].shape]
    problems += [f"{key} is of {state[key].dtype} and {state[key].layout}, not {own[key].dtype} and {own[key].layout}"
                 for key in own if key in state and not _alike(state[key], own[key])]
    if problems:
        raise UserError(f"{path}: does not fit the network that the settings ask for ({len(problems)} differences: "
                        f"{'; '.join(problems[:3])}); {remedy}")
    module.load_state_dict(state, strict=False)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict with ``weights_only=True``.

    Raises:
        UserError: missing, unreadable, or not a mapping of names to tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such weights file") from None
    except Exception as error:  # torch raises many kinds here: pickle, zip, key and runtime errors
        raise UserError(f"{path}: cannot be read as PyTorch weights ({why_unreadable(error)})") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: a state dict (names to tensors) was expected")
    return {name.removeprefix("module."): value for name, value in state.items()}


def why_unreadable(error: Exception) -> str:
    """Why ``torch.load`` refused a file, without its advice to read what may run code."""
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        return f"it holds {found[1]}, and nothing but tensors is read" if found else "it is no file of torch.save"
    if isinstance(error, EOFError):
        return "it is empty, or cut"
    return str(error).splitlines()[0] if str(error).strip() else type(error).__name__


def _alike(stored: Tensor, own: Tensor) -> bool:
    """Whether numbers can be taken over; halves of floats may, parts of complex or sparse ones not."""
    return stored.layout == own.layout and stored.is_floating_point() == own.is_floating_point() \
        and stored.is_complex() == own.is_complex()
