"""SIGKILL in the middle of a long stage, of the stage and of `dvc` itself; then `dvc repro` goes on.

Slow: the whole chain runs at a small size, once undisturbed and once with a kill in every long stage.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines.mend import mend
from pipelines.settings import METHODS, with_method
from pipelines.workspace import ROOT, changed
from stages.runtime.settings import read_yaml

pytestmark = pytest.mark.slow

SMALL = {
    "dataset.shapes": {"train": 48, "val": 12, "width": 96, "height": 80},
    "runtime.checkpoint_seconds": 0.5, "runtime.workers": 2,
    "irnet.classifier.epochs": 12, "irnet.network.epochs": 8, "detector.train.steps": 60,
    "exits.extractor.epochs": 6, "exits.generator.epochs": 6,
    "bestie.classifier.epochs": 6, "bestie.maps.segmenter.epochs": 12, "bestie.network.epochs": 16,
}
# Where unfinished work shows that a stage is in the middle, as a pattern below .work.
MIDDLE = {
    "irnet": {
        "prepare": "prepare-*/**/*.json",
        "train_classifier": "irnet-train_classifier-*/checkpoint.pt",
        "infer_cams": "irnet-infer_cams-*/results/*.npz",
        "mine_relations": "irnet-mine_relations-*/relations/*.npz",
        "train_irnet": "irnet-train_irnet-*/checkpoint.pt",
        "propagate": "irnet-propagate-*/propagated/*.npz",
        "train": "train-*/*",
        "predict": "predict-*/results/*.json",
    },
    "bestie": {
        "train_segmenter": "bestie-train_segmenter-*/checkpoint.pt",
        "train_classifier": "bestie-train_classifier-*/checkpoint.pt",
        "train_refiner": "bestie-train_refiner-*/checkpoint.pt",
        "synthesize": "bestie-synthesize-*/results/*/*.json",
    },
    "exits": {
        "train_extractor": "exits-train_extractor-*/checkpoint.pt",
        "propagate": "exits-propagate-*/results/*/*.npz",
        "train_generator": "exits-train_generator-*/checkpoint.pt",
        "infer_masks": "exits-infer_masks-*/results/*/*.npz",
    },
}


def _workspace(folder: Path, method: str, processes: int = 1) -> Path:
    folder.mkdir()
    for name in ("stages", "pipelines", "dvc.yaml", ".dvcignore"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(folder)], check=True)
    for lock in folder.glob("pipelines/*/dvc.lock"):
        lock.unlink()
    params = changed(with_method(read_yaml(ROOT / "pipelines/presets/shapes.yaml"), method),
                     {**SMALL, "runtime.processes": processes})
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=folder, check=True)
    return folder


def _start(folder: Path) -> subprocess.Popen[str]:
    # A process called `dvc`, as users start it: stages find it among their ancestors.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                   "PYTHONPATH": ""}
    log = (folder / "log").open("a")
    return subprocess.Popen(["dvc", "repro", "report"], cwd=folder, stdout=log, stderr=log, text=True,
                            env=environment, start_new_session=True)


def _processes(folder: Path) -> list[int]:
    """Processes that run in ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve() == folder.resolve():
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found.append(int(entry.name))
        except OSError:
            continue
    return found


def _stage_pid(folder: Path, stage: str) -> int | None:
    for pid in _processes(folder):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        if words[1:2] == ["-m"] and words[2].endswith(f".{stage}"):
            return pid
    return None


def _wait_for_middle(folder: Path, stage: str, pattern: str, dvc: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if any((folder / ".work").glob(pattern)) and _stage_pid(folder, stage):
            return
        assert dvc.poll() is None, (folder / "log").read_text()[-2000:]
        time.sleep(0.02)
    raise AssertionError(f"{stage} was never seen in the middle of its work")


@pytest.mark.parametrize("method", MIDDLE)
def test_killed_stages_go_on_and_leave_no_orphans(tmp_path: Path, method: str) -> None:
    plain, killed = _workspace(tmp_path / "plain", method), _workspace(tmp_path / "killed", method)
    assert _start(plain).wait(900) == 0, (plain / "log").read_text()[-2000:]

    stages = MIDDLE[method]
    for number, (stage, pattern) in enumerate(stages.items()):
        dvc = _start(killed)
        _wait_for_middle(killed, stage, pattern, dvc)
        if number % 2:
            os.kill(dvc.pid, signal.SIGKILL)
        else:
            pid = _stage_pid(killed, stage)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        dvc.wait(60)
        deadline = time.monotonic() + 10
        while _processes(killed) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _processes(killed), f"orphans after the kill in {stage}"
        (killed / "log").write_text("")
        again = _start(killed)
        # It must take up the old work, not begin anew.
        deadline = time.monotonic() + 120
        while "going on with the work" not in (killed / "log").read_text() and time.monotonic() < deadline:
            assert again.poll() in (None, 0), (killed / "log").read_text()[-2000:]
            time.sleep(0.05)
        assert "going on with the work" in (killed / "log").read_text(), f"{stage} began anew"
        os.killpg(again.pid, signal.SIGKILL) if number < len(stages) - 1 else None
        again.wait(600)
    if again.returncode != 0:
        assert _start(killed).wait(600) == 0, (killed / "log").read_text()[-2000:]
    for name in (f"data/{method}/pseudo_labels.json", f"data/{method}/predictions.json", "metrics/score.json"):
        assert (killed / name).read_bytes() == (plain / name).read_bytes(), f"{name} differs after the kills"


KILLS = int(os.environ.get("KILLS", "6"))


def _results(folder: Path) -> dict[str, str]:
    """Digest of every output of DVC but the report, which quotes no numbers that are not in the others."""
    found = {}
    for name in ("data", "models", "metrics"):
        for path in sorted((folder / name).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_random_kills_change_nothing(tmp_path: Path, method: str, processes: int) -> None:
    """SIGKILL of `dvc`, of a process of a stage (torchrun or a rank of several) or of all at random moments, KILLS
    times: the same bytes in the end."""
    random = np.random.default_rng(7)
    plain, killed = (_workspace(tmp_path / name, method, processes) for name in ("plain", "killed"))
    started = time.monotonic()
    assert _start(plain).wait(900) == 0, (plain / "log").read_text()[-2000:]
    # Moments are spread over what is left: with k kills to come, one chain's time / k.
    whole = time.monotonic() - started
    for number in range(KILLS):
        print(mend(killed) or f"kill {number + 1} of {KILLS}")
        dvc = _start(killed)
        try:
            dvc.wait(1 + random.uniform(0, 2.5) * whole / KILLS)
            assert dvc.returncode == 0, (killed / "log").read_text()[-2000:]
            break
        except subprocess.TimeoutExpired:
            pass
        stages = [pid for pid in _processes(killed) if pid != dvc.pid]
        kind = random.choice(["dvc", "stage", "group"])
        if kind == "group":
            os.killpg(dvc.pid, signal.SIGKILL)
        else:
            os.kill(int(random.choice(stages)) if kind == "stage" and stages else dvc.pid, signal.SIGKILL)
        dvc.wait(60)
        deadline = time.monotonic() + 10
        while _processes(killed) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _processes(killed), f"orphans after kill {number + 1} ({kind})"
    print(mend(killed))
    (killed / "log").write_text("")
    assert _start(killed).wait(900) == 0, (killed / "log").read_text()[-2000:]
    assert _results(killed) == _results(plain)
