"""Thousands of mutated inputs, each in a process with limits on memory and time; prints a table of outcomes.

``make fuzz CASES=10000``, or ``python -m tests.fuzz.soak --cases 10000 [--seed N] [--kinds coco,settings]``. A case is
its seed and its number: ``make fuzz SEED=3 CASE=1234`` runs that one again and keeps its folder. The exit status is 1
if anything was neither refused in a sentence nor accepted and right.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from stages.runtime.errors import UserError, printable
from stages.runtime.fingerprint import fingerprint
from tests.fuzz import data_sets, later, oracles, settings_files
from tests.fuzz.kind import Kind
from tests.fuzz.oracles import ask
from tests.fuzz.server import BROKEN, OUTCOMES, Limits, Outcome, run_limited

KINDS: dict[str, Kind] = {**data_sets.KINDS, **settings_files.KINDS, **later.KINDS}
HEADINGS = ("refused", "accepted, right", "tracebacks", "hangs", "memory", "wrong")
LONGEST = 20_000
"""Characters of a refusal: one can still be read."""
_NAMED = re.compile(r"[\w.-]+\.(json|csv|yaml|png|jpg|txt|mat|npz|pt|bmp|gif|tif|webp|ppm)|image \d|\b\w+(\.\w+)+"
                    r"|\S/\S")
"""A file or folder, an image, or the path of a key: what every refusal has to name."""


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all cases (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: %(default)s)")
    parser.add_argument("--case", type=int, help="run this one alone and keep its folder")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of input, joined by commas (default: all)")
    chosen = parser.parse_args()
    kinds = [name.strip() for name in chosen.kinds.split(",")]
    unknown = [name for name in kinds if name not in KINDS]
    if unknown:
        parser.error(f"no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    numbers = [chosen.case] if chosen.case is not None else range(chosen.first, chosen.first + chosen.cases)
    # The folder of one case stays, so that one can look at it.
    base = Path(tempfile.mkdtemp(prefix="weakmask-fuzz-"))
    try:
        table = soak(KINDS, numbers, chosen.seed, base, kinds)
    finally:
        if chosen.case is None:
            shutil.rmtree(base, ignore_errors=True)
        else:
            print(f"its folder: {base}")
    print(as_table(table))
    raise SystemExit(any(counts[name] for counts in table.values() for name in BROKEN))


def soak(kinds: Mapping[str, Kind], numbers: Sequence[int], seed: int, base: Path, chosen: Sequence[str],
         limits: Limits | None = None) -> dict[str, Counter[str]]:
    """Run cases one after the other.

    Args:
        kinds: all that there are: a case's number says which one it is of.
        numbers: of the cases.
        seed: of all of them.
        base: folder for templates and cases.
        chosen: names of kinds; cases of others are passed over.
        limits: of one case.

    Returns:
        Kind -> outcome -> how many.
    """
    names, table, started = list(kinds), {name: Counter[str]() for name in chosen}, time.monotonic()
    print(f"seed {seed}, cases {numbers[0]} to {numbers[-1]}; again one of them: make fuzz SEED={seed} CASE=number",
          flush=True)
    for name in chosen:
        template = base / name
        for part in ("user", "desk", "outside"):
            (template / part).mkdir(parents=True)
        kinds[name].build(template)
    for module in ("prepare.prepare", "prepare.annotate", "proposals.propose"):
        fingerprint(f"stages.{module}")  # once, not in every child
    for name in chosen:  # a soak of inputs that are refused anyway finds nothing
        whole = replace(kinds[name], spoil=lambda random, case: "nothing")
        for attempt in range(5):  # what is run has settings by chance, and not all of them suit every input
            outcome = run_case(whole, base / name, base / f"whole-{name}", f"{seed} whole {attempt}",
                               limits or Limits())
            if outcome.name != "refused":
                break
        if outcome.name != "accepted":
            raise SystemExit(f"{name}: the input is not accepted as it is: {outcome.name}\n{outcome.message}")
    for number in numbers:
        name = names[number % len(names)]
        if name not in table:
            continue
        outcome = run_case(kinds[name], base / name, base / f"case-{number}", f"{seed} {number}", limits or Limits())
        table[name][outcome.name] += 1
        if outcome.name in BROKEN or len(numbers) == 1:
            said = (base / f"case-{number}.txt").read_text()
            print(f"\n== case {number}, {name}: {outcome.name} ({outcome.seconds:.1f} s)\n   {said}\n"
                  + re.sub("^", "   ", printable(outcome.message), flags=re.MULTILINE), flush=True)
        if len(numbers) > 1:
            shutil.rmtree(base / f"case-{number}", ignore_errors=True)
        if number and number % 500 == 0:
            print(f"case {number}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return table


def run_case(kind: Kind, template: Path, case: Path, seed: str, limits: Limits) -> Outcome:
    """One case, in a child; what was done to the input stands in ``<case>.txt`` then."""
    case.with_name(f"{case.name}.txt").write_text("(spoiling did not end)")

    def in_child() -> str | None:
        shutil.rmtree(case, ignore_errors=True)  # of a run before
        return _in_child(kind, template, case, seed)

    return run_limited(in_child, limits)


def _in_child(kind: Kind, template: Path, case: Path, seed: str) -> str | None:
    """None where the case was accepted, else the refusal."""
    random = Random(seed)
    shutil.copytree(template, case, symlinks=True)
    done = kind.spoil(random, case)
    case.with_name(f"{case.name}.txt").write_text(printable(done), encoding="utf-8")
    os.chdir(case / "desk")
    before = _kept(case, kind)
    refusal, result = None, None
    try:
        result = kind.run(random, case)
    except UserError as error:
        refusal = str(error)
    after = _kept(case, kind)
    changed = sorted({*before.items()} ^ {*after.items()})
    ask(not changed, f"changed or written where nothing is to be: {changed[:4]}")
    oracles.nothing_unfinished(case / "desk")
    if refusal is None:
        kind.check(case, result)
        return None
    ask(_NAMED.search(refusal), f"the refusal names neither file nor key nor image: {refusal}")
    ask(len(refusal) <= LONGEST, f"a refusal of {len(refusal)} characters: {refusal[:500]}")
    kind.refused(case)
    return refusal


def _kept(case: Path, kind: Kind) -> dict[str, str]:
    """What must stay as it is: all but what the kind writes."""
    return {name: digest for name, digest in oracles.snapshot(case).items()
            if not any(f"{name}/".startswith(f"{place}/") or f"{place}/".startswith(f"{name}/")
                       for place in kind.writes)}


def as_table(table: Mapping[str, Mapping[str, int]]) -> str:
    """Kinds down, outcomes across, with sums."""
    rows = [("kind of input", *HEADINGS)]
    rows += [(name, *(str(counts.get(outcome, 0)) for outcome in OUTCOMES)) for name, counts in table.items()]
    rows.append(("all", *(str(sum(counts.get(outcome, 0) for counts in table.values())) for outcome in OUTCOMES)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(" | ".join([row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(
        row[1:], widths[1:], strict=True))]) for row in rows)


if __name__ == "__main__":
    main()
