import json
import os
import subprocess
import sys
import time

import psutil

from pipelines.rehearsal.watch import Watch, resident
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


def test_nothing_is_below_a_process_that_is_gone():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert resident(process.pid) == 0


def test_loops_leave_their_pace(tmp_path, monkeypatch, capsys):
    file = tmp_path / "pace"
    monkeypatch.setenv(PACE, str(file))
    monkeypatch.setenv("DVC_STAGE", "pipelines/a/dvc.yaml:b")
    for number in progress(range(3), 3, "learning", samples=7, batch=2):
        time.sleep(0.3 if number == 0 else 0.1)
    assert list(progress([], 0, "nothing")) == []
    learning, nothing = map(json.loads, file.read_text().splitlines())
    assert (learning["stage"], learning["walk"], learning["items"]) == ("pipelines/a/dvc.yaml:b", "learning", 3)
    assert (learning["samples"], learning["batch"]) == (7, 2)
    assert 0.3 <= learning["start"] < 0.45 and 0.5 <= learning["seconds"] < 0.9
    assert nothing["items"] == nothing["first"] == 0
    capsys.readouterr()
