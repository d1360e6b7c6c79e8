"""Losses and learning rate by step, as DVCLive writes them and ``dvc plots`` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dvclive import Live
from torch import Tensor

from stages.runtime.files import write_text


class Curves:
    """Means of the losses over every ``every`` steps.

    Args:
        folder: of the curves.
        first: steps that are done already; rows that a killed run wrote after its last checkpoint are dropped.
        every: steps per row [steps].
        pending: ``state()`` of the run that goes on, so that a row averages the same steps as without the kill.
    """

    def __init__(self, folder: Path, first: int, every: int = 10,
                 pending: Mapping[str, list[float]] | None = None) -> None:
        self.every = every
        # Kept as tensors until a row is due: reading a number makes the host wait for the device.
        self.values: dict[str, list[float | Tensor]] = {name: list(values) for name, values in (pending or {}).items()}
        for table in folder.glob("plots/metrics/**/*.tsv"):
            cut_rows(table, first)
        self.live = Live(dir=str(folder), resume=first > 0, save_dvc_exp=False, dvcyaml=None, report=None)

    def add(self, step: int, terms: Mapping[str, Tensor], rate: float, last: bool) -> None:
        """Note the losses of a step; a row is written when it is due, and at the last step."""
        for name, term in terms.items():
            self.values.setdefault(name, []).append(term.detach())
        if (step + 1) % self.every and not last:
            return
        self.live.step = step
        for name, values in self.state().items():
            self.live.log_metric(name, sum(values) / len(values), timestamp=False)
        self.live.log_metric("learning_rate", rate, timestamp=False)
        self.live.make_summary()
        self.values = {}

    def state(self) -> dict[str, list[float]]:
        """The losses since the last row."""
        return {name: [float(value) for value in values] for name, values in self.values.items()}

    def close(self) -> None:
        """Finish the files."""
        self.live.end()


def cut_rows(table: Path, first: int) -> None:
    """Keep the rows of the steps below ``first``."""
    head, *rows = table.read_text().splitlines() or ["step"]
    names = head.split("\t")
    column = names.index("step")
    # A kill may have cut the last row short.
    whole = [row for row in rows if row.count("\t") == len(names) - 1 and row.split("\t")[column].isdigit()]
    kept = [row for row in whole if int(row.split("\t")[column]) < first]
    write_text(table, "\n".join([head, *kept]) + "\n")
