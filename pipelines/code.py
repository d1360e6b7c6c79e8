"""What every stage runs, as small files that DVC can depend on: data/code/<stage> and data/code/<folder>/<stage>.

Each holds two digests: of the code (see stages/runtime/fingerprint.py) and of the settings that the stage's dvc.yaml
names, defaults filled in. So a mended line, and a changed default, rerun what uses them, and no dvc.yaml lists files.
What a stage takes from further sections under some condition only is a third line: a list of parameters knows no "if".
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel

from stages.prepare.budget import budget_of
from stages.runtime import fingerprint
from stages.runtime.errors import UserError
from stages.runtime.files import write_text
from stages.runtime.settings import read_yaml

FOLDER = Path("data/code")


def stages_of(path: Path) -> dict[str, dict[str, Any]]:
    """The stages of a dvc.yaml."""
    return read_yaml(path)["stages"]


def value_at(settings: SimpleNamespace, path: str) -> Any:
    """What the settings hold at a dotted path, as plain data.

    Raises:
        UserError: nothing is there.
    """
    value: Any = settings
    for part in path.split("."):
        if not hasattr(value, part):
            raise UserError(f"params.yaml: a dvc.yaml names the setting {path}, and there is no {part} in it")
        value = getattr(value, part)
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def filled(text: str, settings: SimpleNamespace) -> str:
    """A text of a dvc.yaml with the settings' values in the place of its ``${...}``."""
    return re.sub(r"\$\{([\w.]+)\}", lambda found: str(value_at(settings, found[1])), text)


def conditions(settings: SimpleNamespace) -> dict[str, str]:
    """Stage of the common chain -> a line on what it takes from further sections, where it does.

    With a budget `prepare` draws as many images as the labels cost; without one no other supervision redoes the images.
    """
    budget = budget_of(settings.dataset, settings.method, settings.annotations.model_dump(),
                       settings.evaluate.model_dump())
    return {} if budget is None else {"prepare": f"images {budget.images}\n"}


def write_fingerprints(settings: SimpleNamespace, folder: Path = FOLDER) -> None:
    """Write the files of all stages of the common chain and of all folders with a dvc.yaml.

    Args:
        settings: the whole of params.yaml.
        folder: where to.
    """
    chosen = {name: str(value_at(settings, name)) for name in fingerprint.choosing_settings()}
    conditional = conditions(settings)
    own = Path("pipelines").glob("*/dvc.yaml")
    chains = {Path(): Path("dvc.yaml"), **{Path(path.parent.name): path for path in own}}
    for part, path in chains.items():
        for name, stage in stages_of(path).items():
            if name == "check":  # it reads everything anyway
                continue
            module = stage["cmd"].split()[2]
            names = [filled(str(entry), settings) for entry in stage.get("params", [])]
            values = {name: value_at(settings, name) for name in names}
            digest = hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()
            write_text(folder / part / name, f"code {fingerprint.fingerprint(module, chosen)}\nsettings {digest}\n"
                                             + (conditional.get(name, "") if part == Path() else ""))


def check_dependencies() -> None:
    """Make sure that DVC runs `check` whenever any code has changed.

    ``pipelines`` cannot be a dependency as a whole: DVC keeps a dvc.lock beside every dvc.yaml and changes it in every
    run. So its files are listed, in this one stage alone.

    Raises:
        UserError: a module is not among the dependencies of `check`.
    """
    listed = set(stages_of(Path("dvc.yaml"))["check"]["deps"])
    missing = sorted(set(code_files(Path("pipelines"))) - listed)
    if missing:
        lines = ", ".join(f"- {name}" for name in missing)
        raise UserError(f"dvc.yaml: the deps of the stage check leave out {missing[0]}, so that a change of it would "
                        f"rerun nothing; add the line{'s' * (len(missing) > 1)}: {lines}")


def code_files(folder: Path, root: Path = Path()) -> list[str]:
    """Python modules below a folder, sorted, as paths from ``root``."""
    return sorted(path.relative_to(root).as_posix() for path in folder.rglob("*.py"))
