import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from stages.runtime.stage import run_stage

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("torch", "torchvision", "lightning", "timm", "dvclive", "detectron2")


def _modules() -> list[str]:
    """Modules of all stages, from the commands of all dvc.yaml files, and the commands that people type."""
    found = {"pipelines.ablation", "pipelines.photos", "pipelines.rehearse", "stages.evaluation.table"}
    for path in [ROOT / "dvc.yaml", *ROOT.glob("pipelines/*/dvc.yaml")]:
        stages = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"].values()
        found |= {stage["cmd"].split()[2] for stage in stages}
    return sorted(found)


@pytest.mark.parametrize("module", _modules())
def test_help_is_quick_because_torch_is_not_imported(module):
    script = (f"import runpy, sys\nsys.argv = ['x', '--help']\n"
              f"try:\n    runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
              f"except SystemExit as end:\n    assert not end.code, end.code\n"
              f"print('HEAVY', *(name for name in {HEAVY!r} if name in sys.modules))")
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    *text, last = result.stdout.splitlines()
    assert text[0].startswith("usage:")
    assert len(text) > 5, "the help says nothing about the stage"
    assert last == "HEAVY", f"{module} imports {last} before it has anything to do"


def _write_stage(folder: Path, body: str) -> None:
    (folder / "job.py").write_text(
        f'"""A stage."""\nimport sys\nfrom stages.runtime.errors import UserError\n'
        f"from stages.runtime.stage import run_stage\n\n\ndef main(params):\n{body}\n\n\n"
        f"if __name__ == '__main__':\n    run_stage(main, __doc__)\n")


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "job", *words], cwd=folder, capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)


def test_an_error_of_the_user_is_one_line(tmp_path):
    _write_stage(tmp_path, "    raise UserError(f'{params}: seed: missing')")
    result = _run(tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "error: params.yaml: seed: missing\n")
    assert _run(tmp_path, "--params", "other.yaml").stderr == "error: other.yaml: seed: missing\n"


def test_a_full_disk_is_one_line(tmp_path):
    """By the one file that is always full, also under torch's own writer."""
    _write_stage(tmp_path, "    import torch\n    with open('/dev/full', 'wb') as file:\n"
                           "        torch.save(torch.zeros(1_000_000), file)")
    result = _run(tmp_path)
    assert result.returncode == 1
    assert result.stderr == (f"error: the disk is full (No space left on device): make room in {tmp_path} and run "
                             f"again; work that is done is kept\n")
    _write_stage(tmp_path, "    raise OSError(13, 'Permission denied')")
    assert "Traceback" in _run(tmp_path).stderr


def test_no_control_character_reaches_the_terminal(tmp_path):
    _write_stage(tmp_path, "    raise UserError('a\\x1b[2J\\rb\\ud800.png: no such image\\n  - second')")
    assert _run(tmp_path).stderr == "error: a\\x1b[2J\\rb\\ud800.png: no such image\n  - second\n"


def test_a_defect_shows_its_traceback(tmp_path):
    _write_stage(tmp_path, "    raise KeyError('ours')")
    result = _run(tmp_path)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "error:" not in result.stderr


def test_an_interrupt_is_one_line(tmp_path):
    _write_stage(tmp_path, "    raise KeyboardInterrupt")
    result = _run(tmp_path)
    assert result.returncode == 130
    assert result.stderr == "interrupted; the next run goes on from the work that is done\n"


def test_unknown_options_are_refused():
    with pytest.raises(SystemExit) as caught:
        run_stage(lambda params: None, "text", ["--parms", "x"])
    assert caught.value.code == 2


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_until_gone(pids: list[int], seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(_alive, pids)):
        time.sleep(0.05)
    return [pid for pid in pids if _alive(pid)]


WITH_WORKERS = """    import os, time
    from stages.runtime.parallel import parallel_map
    from stages.runtime.settings import RuntimeSettings
    import helper
    parallel_map(helper.note_and_sleep, range(2), RuntimeSettings(workers=2), 'sleeping')"""


@pytest.fixture
def orphan(tmp_path):
    """A fake DVC that runs a stage through a shell, as DVC does; gives its process and the pids of all below it."""
    _write_stage(tmp_path, WITH_WORKERS)
    (tmp_path / "helper.py").write_text(
        "import os, time\nfrom pathlib import Path\n\ndef note_and_sleep(item):\n"
        "    Path(f'{item}.pid').write_text(f'{os.getpid()} {os.getppid()}')\n    time.sleep(60)\n")
    fake = tmp_path / "dvc"
    # A second command keeps the shell between the two.
    fake.write_text(f"#!{sys.executable}\nimport subprocess, sys\n"
                    f"subprocess.run('{sys.executable} -m job; true', shell=True)\n")
    fake.chmod(0o755)
    pids: list[int] = []

    def start(**environment):
        process = subprocess.Popen([str(fake)], cwd=tmp_path, stderr=subprocess.DEVNULL,
                                   env={**os.environ, "PYTHONPATH": str(ROOT), **environment})
        deadline = time.monotonic() + 30
        files = [tmp_path / "0.pid", tmp_path / "1.pid"]
        while time.monotonic() < deadline and not all(path.exists() and path.read_text() for path in files):
            time.sleep(0.05)
        pids.extend({int(word) for path in files for word in path.read_text().split()})
        assert len(pids) >= 3
        assert all(map(_alive, pids))
        return process, pids

    yield start
    for pid in pids:
        if _alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_stage_and_its_workers_end_with_a_killed_dvc(orphan):
    process, pids = orphan(DVC_STAGE="job")
    process.kill()
    process.wait()
    assert _wait_until_gone(pids, 3.0) == []


def _run_under(folder: Path, parent: str, launched: bool, **environment) -> None:
    """Run a stage that notes that it ran, half a second after ``parent`` (Python code that starts COMMAND), or as the
    rank of what is called like torchrun."""
    _write_stage(folder, "    import time\n    time.sleep(1.5)\n    open('ran', 'w').close()")
    module = "job"
    if launched:
        module = "torch.distributed.run"
        (folder / "torch/distributed").mkdir(parents=True)
        for name in ("torch", "torch/distributed"):
            (folder / name / "__init__.py").touch()
        (folder / "torch/distributed/run.py").write_text(
            "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'job'], start_new_session=True)\n")
    command = f"sleep 0.5; {sys.executable} -m {module}; true"
    script = f"import subprocess\nCOMMAND = {command!r}\n{parent}"
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, stderr=subprocess.DEVNULL, timeout=60,
                   env={**os.environ, "PYTHONPATH": str(ROOT), **environment})


@pytest.mark.parametrize("launched", [False, True])
def test_a_stage_whose_dvc_died_while_it_was_starting_ends(tmp_path, launched):
    """There is no DVC among its ancestors any more, so there would be nothing to watch."""
    _run_under(tmp_path, "subprocess.Popen(COMMAND, shell=True, start_new_session=True)", launched, DVC_STAGE="job")
    time.sleep(6)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("launched", [False, True])
def test_a_program_that_runs_dvc_as_a_library_is_a_dvc_too(tmp_path, launched):
    _run_under(tmp_path, "subprocess.run(COMMAND, shell=True)", launched, DVC_STAGE="job")
    assert (tmp_path / "ran").exists()


def test_without_dvc_nothing_is_watched(orphan):
    process, pids = orphan(DVC_STAGE="")
    process.kill()
    process.wait()
    time.sleep(1.5)
    assert all(map(_alive, pids))
