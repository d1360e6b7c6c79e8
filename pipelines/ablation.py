"""Run a method's ablation rows on the embedded data set: `make ablation METHOD=irnet`.

The rows are in pipelines/<method>/ablation.yaml. Writes metrics/ablation/<method>.json; works in a workspace of its
own and leaves params.yaml, dvc.lock and data/ alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipelines.settings import METHODS, with_method
from pipelines.workspace import ROOT, Tree, Workspace, changed, look_up, provenance
from stages.runtime.errors import UserError
from stages.runtime.files import write_json
from stages.runtime.settings import nearest, read_yaml


def run(method: str, preset: Path, rows: list[str] | None = None) -> Tree:
    """Bring every row's score up to date and collect the figures."""
    path = ROOT / "pipelines" / method / "ablation.yaml"
    if method not in METHODS or not path.exists():
        known = sorted(item.parent.name for item in (ROOT / "pipelines").glob("*/ablation.yaml"))
        raise UserError(f"METHOD={method}: no ablation{nearest(method, known)} (there are: {', '.join(known)})")
    plan, params = read_yaml(path), with_method(read_yaml(preset), method)
    print(f"ablation of {method} on {preset.stem}: about {plan['minutes']} minutes on two cores, seconds once its "
          f"networks are in the cache", flush=True)
    workspace = Workspace(f"ablation-{method}")
    found: Tree = {}
    for name, row in plan["rows"].items():
        if rows and name not in rows:
            continue
        seconds = workspace.reproduce(changed(params, row.get("set", {})), "score")
        score = workspace.read("metrics/detail/score.json")
        measured = {metric: look_up(score, place) for metric, place in plan["metrics"].items()}
        found[name] = {**{metric: value for metric, value in measured.items() if value is not None},
                       **{f"paper_{metric}": value for metric, value in row.get("paper", {}).items()},
                       "seconds": round(seconds, 1)}
    return {**found, "run": provenance(params)}


def table(results: Tree) -> str:
    """The rows as text, the paper's figures in brackets."""
    rows = {name: row for name, row in results.items() if name != "run"}
    metrics = [key for key in next(iter(rows.values())) if not key.startswith("paper_")]
    width = max(map(len, rows))
    lines = [" ".join([" " * width, *(f"{metric:>20}" for metric in metrics)])]
    for name, row in rows.items():
        cells = []
        for metric in metrics:
            paper = f" ({row[f'paper_{metric}']:g})" if f"paper_{metric}" in row else ""
            cells.append(f"{row.get(metric, float('nan')):.1f}{paper}".rjust(20))
        lines.append(" ".join([name.ljust(width), *cells]))
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", help="folder below pipelines/")
    parser.add_argument("--preset", type=Path, default=ROOT / "pipelines/presets/shapes.yaml")
    parser.add_argument("--rows", nargs="*", help="only these rows")
    arguments = parser.parse_args()
    try:
        results = run(arguments.method, arguments.preset, arguments.rows)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    path = ROOT / "metrics" / "ablation" / f"{arguments.method}.json"
    write_json(path, results, indent=2)
    print(table(results))
    print(f"-> {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
