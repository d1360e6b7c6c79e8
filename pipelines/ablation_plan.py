"""What pipelines/<method>/ablation.yaml holds: the rows of a paper's tables as changes of params.yaml."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import Field

from stages.evaluation.comparison import ComparisonSettings
from stages.runtime.errors import UserError
from stages.runtime.settings import Settings, nearest, read_yaml, validate


class RowSettings(Settings):
    """One row."""

    set: dict[str, Any] = Field(default={}, description="values of params.yaml by dotted path")
    paper: dict[str, float] = Field(default={}, description="the paper's figures by the names of `metrics`")


SECTIONS: dict[str, Any] = {
    "minutes": float,                      # of all rows with one seed, one after the other, on two cores
    "metrics": dict[str, str],             # by name: a dotted path in metrics/detail/score.json
    "rows": dict[str, RowSettings],
    "compare": list[ComparisonSettings],   # parts of the page that sets rows side by side; may be left out
}


def read_plan(path: Path) -> SimpleNamespace:
    """The sections of an ablation.yaml.

    Raises:
        UserError: a key that does not exist, a figure of the paper that nothing is measured for, or a comparison of
            rows that are not there.
    """
    content = {"compare": [], **read_yaml(path)}
    for key in content:
        if key not in SECTIONS:
            raise UserError(f"{path}: {key}: unknown section{nearest(str(key), list(SECTIONS))} "
                            f"(allowed: {', '.join(SECTIONS)})")
    plan = validate(path, content, SECTIONS)
    for name, row in plan.rows.items():
        known(f"{path}: rows.{name}.paper", list(row.paper), list(plan.metrics))
    for place, part in enumerate(plan.compare):
        known(f"{path}: compare.{place}.rows", part.rows, list(plan.rows))
    return plan


def known(where: str, names: list[str], allowed: list[str]) -> None:
    """Refuse a name that is not allowed."""
    for name in names:
        if name not in allowed:
            raise UserError(f"{where}: there is no {name}{nearest(name, allowed)} (there are: {', '.join(allowed)})")
