import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stages.runtime import fingerprint, work
from stages.runtime.errors import UserError
from stages.runtime.settings import RuntimeSettings
from stages.runtime.work import Work, digest_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A clone of three stages without code, and two inputs."""
    monkeypatch.chdir(tmp_path)
    for path in (STAGE, OTHER, OF_A_METHOD):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("ONE = 1\n")
    monkeypatch.setattr(fingerprint, "CODE", tmp_path / "clone")
    Path("input.json").write_text("{}")
    Path("images").mkdir()
    Path("images/1.png").write_bytes(b"one")
    return tmp_path


INPUTS = ["input.json", "images"]
STAGE, OTHER = Path("clone/stages/room/stage.py"), Path("clone/stages/room/other.py")
OF_A_METHOD = Path("clone/pipelines/method/stage.py")


def test_the_same_work_has_the_same_folder():
    first = Work(STAGE, INPUTS, {"rate": 0.1, "runtime": RuntimeSettings(), "path": Path("a"), "pair": (1, 2)})
    second = Work(STAGE, list(map(Path, INPUTS)),
                  {"pair": [1, 2], "path": "a", "runtime": RuntimeSettings(), "rate": 0.1})
    assert first.folder == second.folder
    assert first.folder.parent == Path(".work")


def test_other_work_has_another_folder():
    found = {digest_of(STAGE, INPUTS, {"rate": 0.1})}

    def differs(stage=STAGE, inputs=INPUTS, parameters=None):
        digest = digest_of(stage, inputs, {"rate": 0.1} if parameters is None else parameters)
        assert digest not in found
        found.add(digest)

    differs(parameters={"rate": 0.2})
    differs(stage=OTHER)
    differs(inputs=["input.json"])
    Path("input.json").write_text("[]")  # as long as before
    differs()
    Path("images/2.png").write_bytes(b"two")
    differs()
    Path("images/2.png").rename("images/3.png")
    differs()
    os.utime("images/3.png", ns=(1, 1))
    differs()
    STAGE.with_name("changed.py").write_text("ONE = 2\n")
    differs(stage=STAGE.with_name("changed.py"))


def test_a_stage_of_a_method_carries_its_name():
    assert (work.name_of(STAGE), work.name_of(OF_A_METHOD)) == ("stage", "method-stage")
    assert Work(OF_A_METHOD, [], None).folder.name.startswith("method-stage-")


def test_a_large_file_counts_by_size_and_time():
    with Path("large").open("wb") as handle:
        handle.truncate((4 << 20) + 1)
    before = digest_of(STAGE, ["large"], None)
    assert digest_of(STAGE, ["large"], None) == before
    os.utime("large", ns=(1, 1))
    assert digest_of(STAGE, ["large"], None) != before


def test_a_missing_input_is_named():
    with pytest.raises(UserError, match="absent: no such file or folder; stage needs it"):
        Work(STAGE, ["absent"], None)


def test_publish_replaces_what_was_there():
    for path in ("out/list.json", "out/maps/old.npz"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("old")
    with Work(STAGE, INPUTS, 1) as job:
        job.path("list.json").write_text("new")
        (job.subfolder("maps") / "new.npz").write_text("new")
        job.path("scratch").write_text("not a result")
        job.publish({"list.json": "out/list.json", "maps": Path("out/maps")})
        assert Path("out/list.json").read_text() == "new"
    assert [item.name for item in Path("out/maps").iterdir()] == ["new.npz"]
    assert not job.folder.exists()


def test_a_result_that_was_not_made_is_a_defect():
    with pytest.raises(FileNotFoundError, match="was to be published"), Work(STAGE, INPUTS, 1) as job:
        job.publish({"absent": "out"})
    assert job.folder.exists()


def test_an_error_leaves_the_folder_for_the_next_run(capsys):
    def interrupted():
        with Work(STAGE, INPUTS, 1) as job:
            job.path("1.npz").write_text("done")
            job.path(".weakmask-2.99999.tmp.npz").write_text("half")
            job.subfolder(".weakmask-folder.99999.tmp")
            job.path(".a.tmp.png").write_text("a user's image of this name")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with Work(STAGE, INPUTS, 1) as again:
        assert again.folder == Work(STAGE, INPUTS, 1).folder
        assert sorted(item.name for item in again.folder.iterdir()) == [".a.tmp.png", "1.npz"]
    assert "stage: going on with the work in .work/stage-" in capsys.readouterr().err
    assert again.folder.exists(), "nothing was published"


def test_leftovers_of_other_versions_go_and_those_of_other_stages_stay():
    folders = {name: Path(".work") / name for name in (
        "stage-0123456789abcdef", "stage-two-0123456789abcdef", "other-0123456789abcdef", "workspaces")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    with Work(STAGE, INPUTS, 1):
        pass
    assert [name for name, folder in folders.items() if not folder.exists()] == ["stage-0123456789abcdef"]


def _hold(seconds: float) -> subprocess.Popen:
    """Another process that has the stage's lock."""
    script = ("import time; from pathlib import Path; from stages.runtime import fingerprint, work\n"
              "fingerprint.CODE = Path('clone').resolve()\n"
              f"with work.Work('{STAGE}', [], None): print('held', flush=True); time.sleep({seconds})\n")
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert holder.stdout.readline() == "held\n"
    return holder


@pytest.fixture
def holder():
    process = _hold(60)
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_held_lock_is_an_error_that_names_its_process(holder):
    started = time.monotonic()
    job = Work(STAGE, [], None, patience_seconds=0.3)
    with pytest.raises(UserError, match=rf"stage is already being run here by process {holder.pid}; wait"), job:
        pass
    assert 0.3 <= time.monotonic() - started < 5
    with Work(OTHER, [], None, patience_seconds=0.3):
        pass


def test_a_killed_process_lets_go(holder):
    holder.send_signal(signal.SIGKILL)
    with Work(STAGE, [], None, patience_seconds=5) as job:
        assert job.folder.exists()


def test_one_process_may_take_the_lock_again():
    for _ in range(2):
        with Work(STAGE, [], None, patience_seconds=0.1):
            pass


def test_only_the_first_rank_owns_the_folder(monkeypatch):
    with Work(STAGE, INPUTS, 1) as owner:
        owner.path("result").write_text("x")
        monkeypatch.setenv("RANK", "1")
        with Work(STAGE, INPUTS, 1, patience_seconds=0.1) as other:
            assert other.folder == owner.folder
            other.publish({"result": "out"})
        monkeypatch.delenv("RANK")
        assert not Path("out").exists()
        owner.publish({"result": "out"})
    assert Path("out").read_text() == "x"
    assert not owner.folder.exists()


def test_arrays_are_no_parameters():
    with pytest.raises(TypeError):
        digest_of(STAGE, [], {"array": np.zeros(3)})
