"""What a kind of input is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any


def nothing(case: Path) -> None:
    """No more is asked of a refusal than of all."""


@dataclass(frozen=True)
class Kind:
    """One kind of input. A case is a folder with ``user`` (what somebody brought), ``outside`` (nobody's business) and
    ``desk``, the working directory of what is run.

    Attributes:
        build: writes a valid input into ``user`` and ``desk`` of a case.
        spoil: changes it, and says how.
        run: what a user would run, with the working directory ``desk``; what it returns goes to ``check``.
        check: raises ``Wrong`` unless what was accepted has the right result.
        refused: the same of what a refusal leaves.
        writes: what of a case may be written or changed.
    """

    build: Callable[[Path], None]
    spoil: Callable[[Random, Path], str]
    run: Callable[[Random, Path], Any]
    check: Callable[[Path, Any], None]
    refused: Callable[[Path], None] = nothing
    writes: tuple[str, ...] = ()
