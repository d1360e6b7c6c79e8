"""The harness finds what it is there to find: planted tracebacks, hangs, crashes, memory hogs and wrong results."""

from __future__ import annotations

import os
import signal
import time
from random import Random

import numpy as np
import pytest

from stages.runtime.errors import UserError
from tests.fuzz import soak
from tests.fuzz.kind import Kind
from tests.fuzz.mutations import ODD, odd_value, places, spoil_bytes, spoil_segmentation, spoil_tree, to_json
from tests.fuzz.oracles import ask, mask_of
from tests.fuzz.server import OUTCOMES, Limits

SHORT = Limits(cpu=2, wall=1.0, memory=200 << 20, space=600 << 20)


def build(case):
    (case / "user/a.txt").write_text("whole")


def nothing(random, case):
    return None


def whole(case, result):
    ask(result is None, "something came out")


def spin(random, case):
    while True:
        pass


def refuse(message):
    def run(random, case):
        raise UserError(message)

    return run


def write(name):
    def run(random, case):
        (case / name).write_text("x")

    return run


def kill(random, case):
    os.kill(os.getpid(), signal.SIGSEGV)


def late(random, case):
    try:
        np.ones(1 << 27)  # 1 GiB: more than may be filled, and less than the second run may ask for
    except MemoryError as error:
        raise UserError(f"a.txt: cannot be read ({error})") from None


def lie(random, case):
    try:
        np.empty(1 << 40)
    except MemoryError as error:
        raise UserError(f"a.txt: cannot be read ({error})") from None


PLANTED = {
    "refused": ("refused", refuse("a.txt: no such word; write another"), {}),
    "accepted": ("accepted", nothing, {}),
    "a traceback": ("traceback", lambda random, case: {}["key"], {}),
    "an exit": ("traceback", lambda random, case: os._exit(3), {}),
    "a crash of native code": ("traceback", kill, {}),
    "an endless loop": ("hang", spin, {}),
    "an endless sleep": ("hang", lambda random, case: time.sleep(60), {}),
    "much memory": ("memory", lambda random, case: len(np.ones(300 << 17)) and None, {}),
    "all memory": ("memory", lambda random, case: np.ones(1 << 50), {}),
    "memory that is refused late": ("memory", late, {}),
    "memory that was asked for and never filled": ("refused", lie, {}),
    "a wrong result": ("wrong", lambda random, case: 1, {}),
    "an original that is changed": ("wrong", write("user/a.txt"), {}),
    "a file elsewhere": ("wrong", write("outside/b.txt"), {}),
    "a file that is half written": ("wrong", write("desk/out/.weakmask-1.tmp"), {"writes": ("desk/out",)}),
    "a refusal that names nothing": ("wrong", refuse("this does not work"), {}),
    "a refusal without end": ("wrong", refuse("a.txt: " + "x" * 30_000), {}),
    "something left by a refusal": ("wrong", refuse("a.txt: no"), {"refused": lambda case: ask(False, "left")}),
}


@pytest.mark.parametrize("case", PLANTED)
def test_planted(tmp_path, case):
    expected, run, more = PLANTED[case]
    template = tmp_path / "template"
    for part in ("user", "desk/out", "outside"):
        (template / part).mkdir(parents=True)
    build(template)
    kind = Kind(build, lambda random, folder: "planted", run, whole, **more)
    outcome = soak.run_case(kind, template, tmp_path / "case", "0 0", SHORT)
    assert outcome.name == expected, outcome
    assert (tmp_path / "case.txt").read_text() == "planted"


def test_table_and_status(tmp_path, capsys):
    kinds = {"good": Kind(build, lambda random, case: "", nothing, whole),
             "bad": Kind(build, lambda random, case: "said", lambda random, case: random.choice([None, 1]), whole)}
    with pytest.raises(SystemExit, match="bad: the input is not accepted as it is: wrong"):
        soak.soak({**kinds, "bad": Kind(build, lambda random, case: "", lambda random, case: 1, whole)}, range(4), 0,
                  tmp_path / "first", ["good", "bad"], SHORT)
    seed = next(seed for seed in range(99) if all(
        Random(f"{seed} {number}").choice([None, 1]) is answer for number, answer in (("whole 0", None), (1, 1))))
    table = soak.soak(kinds, range(4), seed, tmp_path / "second", ["good", "bad"], SHORT)
    assert table["good"] == {"accepted": 2} and table["bad"]["wrong"] >= 1
    printed = capsys.readouterr().out
    assert "== case 1, bad: wrong" in printed and "something came out" in printed and "said" in printed
    lines = soak.as_table(table).splitlines()
    assert lines[0].split(" | ")[1:] == [heading.rjust(len(heading)) for heading in soak.HEADINGS]
    assert lines[-1].split()[0] == "all" and len(soak.HEADINGS) == len(OUTCOMES)
    again = soak.soak(kinds, [1], seed, tmp_path / "third", ["good", "bad"], SHORT)
    assert again["bad"] == {"wrong": 1}, "a case is its seed and its number"


def test_mutations_change_and_repeat():
    tree = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"segmentation": [[1, 2, 3, 4, 5, 6]]}]}
    seen = set()
    for seed in range(300):
        made = []
        for _ in range(2):
            random, changed = Random(seed), {"images": [dict(tree["images"][0])], "annotations": [
                {"segmentation": [list(tree["annotations"][0]["segmentation"][0])]}]}
            spoil_tree(random, changed)
            made.append(to_json(random, changed))
        assert made[0] == made[1]
        seen.add(made[0])
    assert len(seen) > 150
    assert len(places(tree)) == 2 + 2 + 2 + 1 + 1 + 6
    assert len({spoil_bytes(Random(seed), bytes(range(200))) for seed in range(100)}) > 80
    assert len({repr(spoil_segmentation(Random(seed), [[1, 2, 3, 4, 5, 6]], 4, 5)) for seed in range(200)}) > 100
    assert len({repr(odd_value(Random(seed), 5)) for seed in range(400)}) > len(ODD) / 2


def test_the_independent_decoder():
    ring = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]], bool)
    runs = {"size": [4, 4], "counts": [0, 3, 1, 1, 1, 1, 1, 3, 4, 1]}
    assert (mask_of(runs, 4, 4) == ring).all()
    with pytest.raises(soak.oracles.Wrong):
        mask_of({**runs, "counts": [3]}, 4, 4)
    with pytest.raises(soak.oracles.Wrong):
        mask_of([[0, 0, 1e9, 0, 1e9, 1e9]], 4, 4)
