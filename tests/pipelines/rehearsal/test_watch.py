import json
import os
import subprocess
import sys
import time

import psutil

from pipelines.rehearsal.watch import Watch, others, resident
from stages.runtime.progress import PACE, progress

TAKES = "import time; held = bytearray({size}); time.sleep({seconds})"


def _child(size, seconds):
    """Below a process that stands for DVC, one that takes memory."""
    inner = TAKES.format(size=size, seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", f"import subprocess, sys\n"
                             f"sys.exit(subprocess.call([sys.executable, '-c', {inner!r}]) != 0)"])


def test_seconds_and_memory_of_stages(tmp_path):
    watch = Watch(tmp_path / "work/pace.jsonl", 10e9)
    with _child(200_000_000, 2) as process:
        watch.started(process.pid)
        watch.running("first")
        (tmp_path / "work/pace.jsonl").write_text('{"items": 3}\n')
        time.sleep(1.5)
        assert 200e6 < resident(process.pid) < 400e6
        watch.running("second")
        watch.ended()
    first, second = watch.stages["first"], watch.stages["second"]
    assert 1.4 < first.seconds < 5 and 200e6 < first.peak < 400e6 and first.loops == [{"items": 3}]
    assert second.loops == [] and watch.exceeded is None and watch.last == "second"


def test_a_stage_that_takes_too_much_is_ended(tmp_path):
    watch = Watch(tmp_path / "pace.jsonl", 100e6)
    with _child(300_000_000, 60) as process:
        watch.started(process.pid)
        watch.running("greedy")
        assert process.wait(timeout=30) == 1
        watch.ended()
    assert watch.exceeded == "greedy"
    assert not [child for child in psutil.Process(os.getpid()).children() if child.pid == process.pid]


def test_work_of_others_is_told_from_that_of_the_stage(tmp_path):
    busy = "import time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass"
    shares = []
    for ours in (True, False):
        watch = Watch(tmp_path / "pace.jsonl", 10e9)
        inner = busy if ours else "import time; time.sleep(2)"
        with subprocess.Popen([sys.executable, "-c", f"import subprocess, sys\n"
                               f"subprocess.call([sys.executable, '-c', {inner!r}])"]) as process:
            other = None if ours else subprocess.Popen([sys.executable, "-c", busy])
            watch.started(process.pid)
            watch.running("stage")
            time.sleep(1.5)
            watch.ended()
            process.wait()
            if other:
                other.wait()
        shares.append(watch.stages["stage"].busy * (os.cpu_count() or 1))
    assert shares[1] > shares[0] + 0.3 and others(None) == 0.0


def test_nothing_is_below_a_process_that_is_gone():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert resident(process.pid) == 0


def test_loops_leave_their_pace(tmp_path, monkeypatch, capsys):
    file = tmp_path / "pace"
    monkeypatch.setenv(PACE, str(file))
    monkeypatch.setenv("DVC_STAGE", "pipelines/a/dvc.yaml:b")
    for number in progress(range(3), 3, "learning", samples=7, batch=2):
        time.sleep((0.3, 0.1, 0.5)[number])  # the start, a step, the end
    assert list(progress([], 0, "nothing")) == []
    for _ in progress("aab", 3, "looking", part=lambda item: {"a": "train", "b": "val"}[item]):
        time.sleep(0.02)
    assert list(progress([2.0, 4.0, 6.0], 3, "side by side", first=2, own=float, workers=2)) == [2.0, 4.0, 6.0]
    learning, train, val, together = map(json.loads, file.read_text().splitlines())
    assert (learning["stage"], learning["walk"], learning["items"]) == ("pipelines/a/dvc.yaml:b", "learning", 3)
    assert (learning["samples"], learning["batch"]) == (7, 2)
    assert 0.1 <= learning["each"] < 0.25 and 0.9 <= learning["seconds"] < 1.5
    assert [(row["part"], row["items"]) for row in (train, val)] == [("train", 2), ("val", 1)]
    assert 0.02 <= val["each"] == val["seconds"] < 0.2 and train["each"] < train["seconds"]
    assert (together["each"], together["workers"]) == (6.0, 2)
    capsys.readouterr()
