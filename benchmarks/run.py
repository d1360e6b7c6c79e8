"""Run the benchmarks, print their table, and write benchmarks/results.json.

A benchmark is a module of this folder with ABOUT_SECONDS (how long it takes on two idle cores), SETTINGS, SEED and
rows(), which gives {row: {"size", "seconds", "peak_mb", "reference_seconds", "ratio", "rel_error", ...}}; numbers only.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import platform
import sys
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import benchmarks
from stages.runtime.files import write_json

RESULTS = Path(__file__).parent / "results.json"
COLUMNS = ["size", "seconds", "peak_mb", "reference_seconds", "reference_peak_mb", "ratio", "rel_error"]
PACKAGES = ["numpy", "scipy", "torch", "pydensecrf"]


def main() -> None:
    """Run all benchmarks, or those that are named; only a run of all writes the file."""
    available = modules()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(available)}; all if left out")
    names = parser.parse_args().names or list(available)
    unknown = [name for name in names if name not in available]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(available)}")
    expected = sum(available[name].ABOUT_SECONDS for name in names)
    print(f"{', '.join(names)}: about {max(1, round(expected / 60))} min on two idle cores", flush=True)
    start = time.perf_counter()
    table: dict[str, dict[str, Any]] = {}
    for name in names:
        rows = {f"{name}_{key}": figures for key, figures in available[name].rows().items()}
        print(f"\n{format_table(rows)}", flush=True)
        table |= rows
    if set(names) != set(available):
        print(f"\n{RESULTS.name} is left as it was: it is written when all benchmarks run")
        return
    table["run"] = {
        "settings": {name: available[name].SETTINGS for name in names},
        "seed": {name: available[name].SEED for name in names},
        "versions": versions(),
        "cpus": os.cpu_count(),
        "seconds": round(time.perf_counter() - start, 1),
    }
    write_json(RESULTS, table, indent=2)
    print(f"\nwritten to {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")


def modules() -> dict[str, ModuleType]:
    """The benchmarks of this folder by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "run")
    found = {name: import_module(f"benchmarks.{name}") for name in names}
    return {name: module for name, module in found.items() if hasattr(module, "rows")}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def format_table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as aligned text; a dash where a row has no such figure."""
    more = [column for column in dict.fromkeys(key for figures in rows.values() for key in figures)
            if column not in COLUMNS]  # what only this benchmark measures
    lines = [["", *COLUMNS, *more]]
    lines += [[name, *(_cell(figures.get(column)) for column in (*COLUMNS, *more))] for name, figures in rows.items()]
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        )
        for line in lines
    )


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
