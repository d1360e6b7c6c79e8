"""Run a method's ablation rows on the embedded data set, with several seeds: `make ablation METHOD=irnet`.

The rows are in pipelines/<method>/ablation.yaml. Writes metrics/ablation/<method>.json: of every metric the mean over
the seeds and, beside it, as <metric>_std, the standard deviation of one seed (n - 1); where the rows name pictures or
curves to compare, also the page metrics/ablation/<method>.html. Every seed has a workspace of its own, and all share
the clone's DVC cache; params.yaml, dvc.lock and data/ are left alone. A run that was stopped goes on where it was.

With --jobs 1 a row also gets `seconds`: of its `dvc repro`, which makes what the rows before it have not made, the
mean over the seeds for which some stage of it ran; none where all of it came out of the cache.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipelines.ablation_plan import known, read_plan
from pipelines.check import wants_proposals
from pipelines.settings import METHODS, with_method
from pipelines.side_by_side import run_rows
from pipelines.workspace import ROOT, Tree, Workspace, changed, end_with_descendants, look_up, provenance
from stages.evaluation import comparison
from stages.evaluation.tables import Cell, Table
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from stages.runtime.settings import nearest, read_yaml
from stages.runtime.stage import errors_as_lines

SEEDS = (0, 1, 2)
MEASURING = {"check", "score"}
"""Stages that run in every row, also where all its networks come out of the cache."""


@dataclass(frozen=True)
class Outcome:
    """What came out of one row with one seed.

    Attributes:
        measured: by name of the metric; those that could not be measured are left out.
        seconds: that it took, none where all of it came out of the cache.
        plots: content of the files below metrics/plots that are compared.
    """

    measured: dict[str, float]
    seconds: float | None = None
    plots: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class Ablation:
    """One method's rows with some seeds.

    Args:
        method: a method with an ablation.yaml.
        preset: params.yaml that the rows change.
        rows: only these; None is all.
        seeds: values of params.yaml's `seed`.
        jobs: how many seeds run side by side.

    Raises:
        UserError: an unknown method or row, or no seed or job.
    """

    def __init__(self, method: str, preset: Path, rows: Sequence[str] | None = None, seeds: Sequence[int] = SEEDS,
                 jobs: int = 1) -> None:
        path = ROOT / "pipelines" / method / "ablation.yaml"
        if method not in METHODS or not path.exists():
            names = sorted(item.parent.name for item in (ROOT / "pipelines").glob("*/ablation.yaml"))
            raise UserError(f"METHOD={method}: no ablation{nearest(method, names)} (there are: {', '.join(names)})")
        if not seeds or jobs < 1:
            raise UserError("an ablation needs at least one seed and one job")
        self.method, self.preset, self.plan = method, preset, read_plan(path)
        self.params = with_method(read_yaml(preset), method)
        known("ROWS", list(rows or ()), list(self.plan.rows))
        self.rows = [name for name in self.plan.rows if not rows or name in rows]
        self.seeds = list(dict.fromkeys(seeds))
        self.jobs = min(jobs, len(self.seeds))
        self.compared = [part for part in self.plan.compare if set(part.rows) <= set(self.rows)]
        self.workspaces: dict[int, Workspace] = {}

    def announce(self) -> str:
        """What will run, and about how long it takes."""
        alone = round(self.plan.minutes * len(self.seeds))
        some = "up to" if len(self.rows) < len(self.plan.rows) else "about"
        time = f"{some} {alone} minutes on two cores"
        if self.jobs > 1:
            time = (f"{self.jobs} seeds at a time: {some} {round(alone / self.jobs)} minutes where each has two cores, "
                    f"up to {alone} where all share two, and no seconds in the file: they would not compare")
        return (f"ablation of {self.method} on {self.preset.stem}, {len(self.rows)} rows with seeds "
                f"{', '.join(map(str, self.seeds))}: {time}; less with networks in the cache")

    def run(self) -> dict[str, list[Outcome]]:
        """Bring every row up to date with every seed; the outcomes of each row, in the order of the seeds.

        Raises:
            UserError: a row failed; row and seed are named.
        """
        self.workspaces = {seed: Workspace(f"ablation-{self.method}-seed{seed}") for seed in self.seeds}
        if self.jobs > 1:
            self._make_what_seeds_share()
        found = run_rows(self.rows, self.seeds, self.jobs, self._run_row)
        return {row: [found[row, seed] for seed in self.seeds] for row in self.rows}

    def _make_what_seeds_share(self) -> None:
        """Put into the cache what no seed changes; seeds that run side by side would each make it."""
        targets = ["annotate"]
        if wants_proposals(self.method, ROOT):
            targets.append("pipelines/proposals/dvc.yaml:propose")
        print(f"first what all seeds share: {', '.join(target.rpartition(':')[2] for target in targets)}", flush=True)
        self.workspaces[self.seeds[0]].reproduce(self._params(self.rows[0], self.seeds[0]), *targets)

    def _params(self, row: str, seed: int) -> Tree:
        return changed(self.params, {**self.plan.rows[row].set, "seed": seed})

    def _run_row(self, row: str, seed: int) -> Outcome:
        workspace, params = self.workspaces[seed], self._params(row, seed)
        log = None
        if self.jobs > 1:
            log = workspace.folder / "logs" / f"{row}.log"
            log.unlink(missing_ok=True)
        _say(f"row {row}, seed {seed}: running{'' if log is None else f'; {_shown(log)}'}")
        done = workspace.reproduce(params, "score", log=log)
        score = workspace.read("metrics/detail/score.json")
        measured = {metric: look_up(score, place) for metric, place in self.plan.metrics.items()}
        plots = {plot.file: read_json(workspace.folder / layout.METRICS / "plots" / plot.file)
                 for part in self.compared if row in part.rows for plot in part.plots}
        if seed == self.seeds[0]:
            self._keep_gallery(row, params, log)
        _say(f"row {row}, seed {seed}: {done.seconds:.0f} s")
        return Outcome({metric: value for metric, value in measured.items() if value is not None},
                       done.seconds if set(done.ran) - MEASURING else None, plots)

    def _keep_gallery(self, row: str, params: Tree, log: Path | None) -> None:
        """A copy of the row's pictures, if they are compared; the next row makes its own in their place."""
        images = max((part.images for part in self.compared if row in part.rows), default=0)
        if images:
            workspace, method = self.workspaces[self.seeds[0]], params["method"]
            workspace.reproduce(changed(params, {"report.gallery_images": images}),
                                f"pipelines/{method}/dvc.yaml:illustrate", log=log)
            shutil.rmtree(self._gallery(row), ignore_errors=True)
            shutil.copytree(workspace.folder / layout.method_data(method) / "gallery", self._gallery(row))

    def _gallery(self, row: str) -> Path:
        return self.workspaces[self.seeds[0]].folder / "kept" / row / "gallery"

    def results(self, outcomes: Mapping[str, Sequence[Outcome]]) -> Tree:
        """Content of metrics/ablation/<method>.json."""
        found: Tree = {row: summarised(self.plan, row, outcomes[row], self.jobs == 1) for row in self.rows}
        return {**found, "run": {**provenance(self.params, self.seeds), "jobs": self.jobs}}

    def write_page(self, path: Path, outcomes: Mapping[str, Sequence[Outcome]], results: Tree) -> None:
        """The page that sets the compared rows side by side."""
        parts = []
        for part in self.compared:
            rows = {name: comparison.Row(
                ", ".join(f"{key}: {json.dumps(value)}" for key, value in self.plan.rows[name].set.items()),
                {plot.file: [outcome.plots[plot.file] for outcome in outcomes[name]] for plot in part.plots},
                self._gallery(name) if part.images else None) for name in part.rows}
            metrics = metrics_of({name: results[name] for name in part.rows})
            figures = Table("Figures", metrics, [
                (name, "", [Cell(figure(results[name], metric)) for metric in metrics]) for name in part.rows])
            parts.append(comparison.Part(part, figures, rows))
        seeds = ", ".join(map(str, self.seeds))
        comparison.write_page(path, self.method, f"On {self.preset.stem}, with the seeds {seeds}.", parts,
                              self.workspaces[self.seeds[0]].folder)


def summarised(plan: SimpleNamespace, row: str, outcomes: Sequence[Outcome], timed: bool) -> Tree:
    """One row of the results: means over the seeds, deviations, the paper's figures and, if ``timed``, seconds.

    A metric that some seeds lack is left out, and said to be: its mean would be of other runs than those beside it.
    """
    found: Tree = {}
    for metric in plan.metrics:
        values = [outcome.measured[metric] for outcome in outcomes if metric in outcome.measured]
        if len(values) < len(outcomes):
            if values:
                print(f"row {row}: {metric} is left out, {len(values)} of {len(outcomes)} seeds have it")
            continue
        found[metric] = round(statistics.fmean(values), 3)
        if len(values) > 1:
            found[f"{metric}_std"] = round(statistics.stdev(values), 3)
    found |= {f"paper_{metric}": value for metric, value in plan.rows[row].paper.items()}
    seconds = [outcome.seconds for outcome in outcomes if outcome.seconds is not None]
    return {**found, **({"seconds": round(statistics.fmean(seconds), 1)} if seconds and timed else {})}


def metrics_of(rows: Mapping[str, Tree]) -> list[str]:
    """What some row has a figure for, in order, without deviations and the paper's figures."""
    keys = dict.fromkeys(key for row in rows.values() for key in row)
    return [key for key in keys if not key.startswith("paper_")
            and not (key.endswith("_std") and key.removesuffix("_std") in keys)]


def figure(row: Tree, metric: str) -> str:
    """`mean ± deviation (paper)` as far as there are such."""
    if metric not in row:
        return "-"
    deviation = f" ± {row[f'{metric}_std']:.1f}" if f"{metric}_std" in row else ""
    paper = f" ({row[f'paper_{metric}']:g})" if f"paper_{metric}" in row else ""
    return f"{row[metric]:.1f}{deviation}{paper}"


def table(results: Tree) -> str:
    """The rows as text, each cell as :func:`figure` gives it."""
    rows = {name: row for name, row in results.items() if name != "run"}
    lines = [["", *metrics_of(rows)], *([name, *(figure(row, metric) for metric in metrics_of(rows))]
                                        for name, row in rows.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in
                                                         zip(cells, widths[1:], strict=True))])
                     for first, *cells in lines)


def _say(line: str) -> None:
    """Print a line whole, also from several threads."""
    print(f"{line}\n", end="", flush=True)


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", help="folder below pipelines/")
    parser.add_argument("--preset", type=Path, default=ROOT / "pipelines/presets/shapes.yaml")
    parser.add_argument("--rows", nargs="*", help="only these rows; the file then holds no others")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="default: 0 1 2")
    parser.add_argument("--jobs", type=int, default=1, help="seeds that run side by side, each into logs of its own "
                                                            "(default: %(default)s)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, end_with_descendants)
    path = ROOT / "metrics" / "ablation" / f"{arguments.method}.json"
    with errors_as_lines():
        ablation = Ablation(arguments.method, arguments.preset, arguments.rows, arguments.seeds, arguments.jobs)
        print(ablation.announce(), flush=True)
        outcomes = ablation.run()
        results = ablation.results(outcomes)
        write_json(path, results, indent=2)
        print(f"{table(results)}\n-> {_shown(path)}")
        if ablation.compared:
            ablation.write_page(path.with_suffix(".html"), outcomes, results)
            print(f"-> {_shown(path.with_suffix('.html'))}")


if __name__ == "__main__":
    main()
