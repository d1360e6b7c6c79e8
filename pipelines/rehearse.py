"""Rehearse a preset end to end: `make rehearse PRESET=voc2012 METHOD=irnet`.

The whole chain with the preset's own networks, sizes, stages and engine, but on a few images and with three steps per
training, and two of panoptic's rounds: on a miniature of its data set, or with ROOT=... on the first images of the
real one. Writes metrics/rehearsal/<preset>-<method>.json: seconds and memory of every stage, and what they say of the
full run on this device; `check` quotes it. What was changed in the preset is in the file, under `run`. It works in a
workspace of its own, which is begun anew each time; params.yaml, dvc.lock, data/ and DVC's cache are left alone.
"""

from __future__ import annotations

import argparse
import shutil
import signal
from pathlib import Path

from pipelines.rehearsal import CPU_BATCH, FOLDER, MEMORY
from pipelines.workspace import ROOT, end_with_descendants
from stages.runtime.errors import UserError
from stages.runtime.files import write_json
from stages.runtime.settings import nearest
from stages.runtime.stage import errors_as_lines


def preset_file(name: str) -> Path:
    """A file, or the name of a preset.

    Raises:
        UserError: neither.
    """
    named = ROOT / "pipelines/presets" / f"{name}.yaml"
    if named.is_file():
        return named
    if Path(name).is_file():
        return Path(name)
    names = sorted(path.stem for path in named.parent.glob("*.yaml"))
    raise UserError(f"PRESET={name}: no such preset{nearest(name, names)} (there are: {', '.join(names)}; or give a "
                    f"file)")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", help="name of a file in pipelines/presets/, or a file")
    parser.add_argument("method", help="folder below pipelines/")
    parser.add_argument("--root", type=Path, help="folder of the real data set (default: a miniature is written)")
    parser.add_argument("--batch", type=int, help=f"most samples of a step (default: the preset's; on a CPU "
                                                  f"{CPU_BATCH})")
    parser.add_argument("--memory", type=float, metavar="GB",
                        help=f"what the processes of a stage may take together (default: on a CPU {MEMORY / 1e9:g})")
    parser.add_argument("--offline", action="store_true", help="weights: none wherever the preset downloads")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, end_with_descendants)
    # Here, because it imports torch: the help is quick without.
    from pipelines.rehearsal.rehearsal import Rehearsal, table

    with errors_as_lines("interrupted"):
        rehearsal = Rehearsal(preset_file(arguments.preset), arguments.method, arguments.root, arguments.batch,
                              arguments.memory and 1e9 * arguments.memory, arguments.offline)
        print(rehearsal.announce(), flush=True)
        results = rehearsal.run()
        path = ROOT / FOLDER / f"{rehearsal.name}.json"
        write_json(path, results, indent=2)
        print(f"{table(results)}\n-> {path.relative_to(ROOT)}")
        free = shutil.disk_usage(ROOT).free / 1e9
        if results["full"] and results["full"]["disk_gb"] > free:
            print(f"warning: the full run needs about {results['full']['disk_gb']:.0f} GB, and {free:.0f} GB are free "
                  f"here")


if __name__ == "__main__":
    main()
