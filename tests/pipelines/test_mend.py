"""A damaged .dvc/tmp/rwlock, with real files and a real DVC."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.mend import _runs_dvc, dvc_processes, mend

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(ROOT)}
DVC = [sys.executable, "-m", "dvc"]


def _repository(folder: Path, command: str) -> Path:
    folder.mkdir()
    subprocess.run([*DVC, "init", "--no-scm", "--quiet"], cwd=folder, env=ENVIRONMENT, check=True)
    (folder / "dvc.yaml").write_text(f"stages:\n  job:\n    cmd: {command}\n    outs: [out]\n")
    return folder


def _repro(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([*DVC, "repro"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def _lock(folder: Path) -> Path:
    return folder / ".dvc/tmp/rwlock"


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen]]:
    """A folder in which a `dvc repro` is in the middle of a stage."""
    folder = _repository(tmp_path / "busy", "touch started && sleep 60")
    process = subprocess.Popen([*DVC, "repro"], cwd=folder, env=ENVIRONMENT, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (folder / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (folder / "started").exists()
    yield folder, process
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(10)


@pytest.mark.parametrize("content", [b"", b'{"write": {"/a/b": {"pid": 1, "c', b"\xff\xfe"])
def test_a_damaged_file_is_removed_and_dvc_works_again(tmp_path, content):
    folder = _repository(tmp_path / "repository", "touch out")
    _lock(folder).write_bytes(content)
    refused = _repro(folder)
    assert refused.returncode != 0, "DVC no longer needs this"
    message = mend(folder)
    assert "\n" not in message
    assert message.startswith(f"{_lock(folder)}: was damaged")
    assert _repro(folder).returncode == 0
    assert (folder / "out").exists()
    assert mend(folder) == "", "what DVC itself writes is whole"
    assert _lock(folder).exists()


def test_nothing_is_touched_while_dvc_runs_there(tmp_path, busy):
    folder, process = busy
    assert list(dvc_processes(folder)) == [process.pid]
    whole = _lock(folder).read_bytes()
    assert mend(folder) == ""
    assert _lock(folder).read_bytes() == whole
    _lock(folder).write_bytes(b"")
    assert mend(folder).endswith(f"damaged, but DVC runs here (process {process.pid}); it stays as it is")
    assert _lock(folder).read_bytes() == b""

    # A DVC in a folder below or beside is no reason to leave this one alone.
    for other in (tmp_path, tmp_path / "beside"):
        (other / ".dvc/tmp").mkdir(parents=True, exist_ok=True)
        _lock(other).write_bytes(b"{")
        assert list(dvc_processes(other)) == []
        assert "removed" in mend(other)

    process.kill()
    process.wait(10)
    assert "removed" in mend(folder)
    assert not _lock(folder).exists()


def test_a_dvc_that_has_just_taken_the_file_is_not_disturbed(tmp_path):
    folder = _repository(tmp_path / "repository", "touch out")
    _lock(folder).write_bytes(b"")
    script = ("import sys, time\nfrom dvc.lock import make_lock\n"
              "with make_lock(sys.argv[1], tmp_dir=sys.argv[2]):\n    print('held', flush=True)\n    time.sleep(60)")
    holder = subprocess.Popen([sys.executable, "-c", script, f"{_lock(folder)}.lock", str(_lock(folder).parent)],
                              stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert mend(folder).endswith("a DVC that has just started holds it; it stays as it is")
        assert _lock(folder).exists()
    finally:
        holder.kill()
        holder.wait(10)
    assert "removed" in mend(folder)


@pytest.mark.parametrize(("line", "runs"), [
    ("/a/bin/dvc repro", True), ("/a/bin/python /a/bin/dvc repro daemon", True), ("python -m dvc repro", True),
    ("C:/dvc.exe exp run", True), ("dvc daemon updater", False), ("python -m dvc daemon -q analytics", False),
    ("python -m pipelines.mend", False), ("make demo", False), ("", False)])
def test_command_lines_of_dvc(line, runs):
    assert _runs_dvc(line.split()) is runs


def test_nothing_to_mend(tmp_path):
    assert mend(tmp_path) == ""
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    assert mend(tmp_path) == ""
    _lock(tmp_path).write_text("{}")
    assert mend(tmp_path) == ""
    assert _lock(tmp_path).read_text() == "{}"


def test_the_command_says_what_it_did_in_one_line(tmp_path):
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    _lock(tmp_path).write_text("{")
    command = [sys.executable, "-m", "pipelines.mend"]
    found = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert found.stdout == f"{_lock(tmp_path)}: was damaged (a killed DVC leaves it so); removed\n"
    found = subprocess.run([*command, str(tmp_path)], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True,
                           check=True)
    assert found.stdout == ""


@pytest.mark.parametrize(("text", "damaged"), [
    ("", True), ("schema: '2.0'\n", True), ("schema: '2.0'\nstages:\n  a:\n    cmd: x\n", False),
    ("schema: '2.0'\nstages:\n  a: {cmd: [", True)])
def test_lock_files_that_a_kill_cut_short(tmp_path, text, damaged):
    """DVC finds in its run cache what a lock file said."""
    for path in (tmp_path / "dvc.lock", tmp_path / "pipelines/irnet/dvc.lock"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    message = mend(tmp_path)
    assert message.count("removed") == (2 if damaged else 0)
    assert (tmp_path / "dvc.lock").exists() == (not damaged)
