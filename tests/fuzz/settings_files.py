"""Settings files: params.yaml of every preset, spoilt, for the models and for `check`."""

from __future__ import annotations

import copy
import shutil
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import yaml
from pydantic import BaseModel

from pipelines import check
from pipelines.settings import load_params
from tests.fuzz.kind import Kind
from tests.fuzz.mutations import places, spoil_file, spoil_tree
from tests.fuzz.oracles import ask

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted((ROOT / "pipelines/presets").glob("*.yaml"))


def _build_settings(case: Path) -> None:
    for name in ("pipelines", "stages", "dvc.yaml"):
        (case / "desk" / name).symlink_to(ROOT / name)
    shutil.copyfile(ROOT / "pipelines/presets/shapes.yaml", case / "desk/params.yaml")


@cache
def _preset(path: Path) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C reader where it was built: as safe, and quicker
    return yaml.load(path.read_text(), Loader=loader)  # one of the two safe ones


def _spoil_settings(random: Random, case: Path) -> str:
    path = case / "desk/params.yaml"
    # Of `shapes` alone the data are always there, so that `check` gets to the end.
    shapes = ROOT / "pipelines/presets/shapes.yaml"
    content = copy.deepcopy(_preset(random.choice([shapes, random.choice(PRESETS)])))
    way = random.random()
    if way < 0.15:
        shutil.copyfile(random.choice(PRESETS), path)
        return spoil_file(random, path)
    done = []
    if 0.15 <= way < 0.4:  # numbers of other sizes: most of them can be run, or are out of bounds
        numbers = [place for place in places(content) if type(place[0][place[1]]) in (int, float)]
        for node, key in random.sample(numbers, random.choice([1, 3, 10])):
            node[key] = type(node[key])(node[key] * random.choice([0, -1, 0.5, 2, 3, 10, 1e3, 1e6, 1e12])) + (
                random.choice([0, 1]))
            done.append(f"{key} := {node[key]}")
    for _ in range(0 if done else random.choice([1, 1, 2, 3])):
        section = random.choice(sorted(content))
        if isinstance(content[section], dict) and content[section] and random.random() < 0.9:
            done.append(f"{section}: {spoil_tree(random, content[section])}")
        else:
            done.append(spoil_tree(random, content, section))
    try:
        text = yaml.dump(content, Dumper=getattr(yaml, "CDumper", yaml.Dumper), sort_keys=False)
    except UnicodeEncodeError:  # halves of characters, which the other one escapes
        text = yaml.dump(content, sort_keys=False)
    if way > 0.6:
        lines = text.split("\n")
        place = random.choice([number for number, line in enumerate(lines) if ": " in line] or [0])
        key = lines[place].partition(":")[0]
        odd = random.choice([
            "2020-13-45", "2001-12-14t21:59:43.10-05:00", "!!python/object/apply:os.system ['true']", "!!timestamp x",
            "!!binary x", "0x" + "f" * 5000, "1:59:59:59:59", "0b" + "1" * 20_000, "*a", "&a [*a]", "<<", "{<<: 1}",
            "[" * 2000, "!!set {a}", "!!omap [a: 1]", "0o17", "017", "~", "yes", ".inf", ".nan", "1e999", "1_000",
            "'", '"\\ud800"',
            '"\\x1b[2J"', "|", "? a", "{a: 1, a: 2}", "!!int x", "!!float x", "!!bool x", "9" * 5000, "@", "`", "%",
            "\t1", "&a [x,x,x,x,x,x,x,x,x]", "[" + "a, " * 5000 + "]", "- 1", '"' + "a" * 100_000 + '"', "!!str",
            "!!null x",
            "=", BOMB])
        lines[place] = f"{key}: {odd}"
        text = "\n".join(lines)
        done.append(f"{key.strip()}: {odd:.60}")
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return "; ".join(done)


BOMB = "[&a [x,x,x,x,x,x,x,x,x], " + ", ".join(
    f"&{after} [{','.join([f'*{before}'] * 9)}]" for before, after in zip("abcdefgh", "bcdefghi", strict=True)) + "]"
"""Lists of lists of aliases: a billion texts, if they are ever written out."""


def _run_settings(random: Random, case: Path) -> tuple[Any, bool]:
    whole = random.random() < 0.3
    settings = load_params(Path("params.yaml"))
    if whole:
        check.main(Path("params.yaml"))
    return settings, whole


def _check_settings(case: Path, result: tuple[Any, bool]) -> None:
    settings, whole = result
    content = yaml.safe_load((case / "desk/params.yaml").read_text(encoding="utf-8"))
    given = _plain(settings)
    for section, value in content.items():
        _same(value, given[section], section)
    ask((case / "desk/data/check").exists() == whole, "data/check")


def _plain(value: Any) -> Any:
    if isinstance(value, SimpleNamespace):
        return {key: _plain(item) for key, item in vars(value).items()}
    return value.model_dump() if isinstance(value, BaseModel) else value


def _same(given: Any, taken: Any, where: str) -> None:
    """What stands in the file is what the settings hold; numbers may change their type."""
    if isinstance(given, dict) and isinstance(taken, dict):
        for key, value in given.items():
            ask(key in taken, f"{where}.{key} was accepted and is nowhere")
            _same(value, taken[key], f"{where}.{key}")
    elif isinstance(given, list) and isinstance(taken, (list, tuple)):
        ask(len(given) == len(taken), f"{where} has {len(given)} items, taken were {len(taken)}")
        for place, (first, second) in enumerate(zip(given, taken, strict=True)):
            _same(first, second, f"{where}.{place}")
    elif isinstance(taken, bool):
        words = ("1", "1.0", "t", "true", "y", "yes", "on") if taken else ("0", "0.0", "-0.0", "f", "false", "n",
                                                                           "no", "off")
        ask(str(given).lower() in words, f"{where}: {given!r} was taken as {taken}")
    elif isinstance(taken, (int, float)) and not isinstance(taken, bool):
        ask(not isinstance(given, bool) and float(given) == float(taken), f"{where}: {given!r} was taken as {taken!r}")
    else:
        ask(given == taken or str(given) == str(taken), f"{where}: {given!r:.80} was taken as {taken!r:.80}")


KINDS = {
    "settings": Kind(_build_settings, _spoil_settings, _run_settings, _check_settings,
                     lambda case: ask(not (case / "desk/data/check").exists(), "refused, and data/check is there"),
                     ("desk/data", "desk/metrics")),
}
