"""How every DVC stage starts and ends."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stages.runtime.errors import UserError, printable
from stages.runtime.settings import read_yaml


def run_stage(main: Callable[[Path], None], description: str | None, argv: Sequence[str] | None = None) -> None:
    """Run ``main(params_path)`` as a command: ``python -m <module> [--params params.yaml]``.

    What goes wrong is said as in ``errors_as_lines``. Under DVC the process ends when DVC does.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings file (default: %(default)s)")
    arguments = parser.parse_args(argv)
    quiet_libraries()
    limit_threads(arguments.params)
    die_with_dvc()
    with errors_as_lines():
        main(arguments.params)


@contextmanager
def errors_as_lines(interrupted: str = "interrupted; the next run goes on from the work that is done"
                    ) -> Iterator[None]:
    """Around what a command does: a ``UserError``, and a disk that is full, become one line on standard error and exit
    status 1, an interrupt the line ``interrupted`` and 130; defects show their traceback.
    """
    try:
        yield
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f", at {printable(str(error.filename))}" if error.filename else ""
        print(f"error: the disk is full ({error.strerror}{where}): make room in {Path.cwd()} and run again; work that "
              f"is done is kept", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        raise SystemExit(130) from None


def quiet_libraries() -> None:
    """Keep library chatter out of the logs that people read, and the hub clients from phoning home."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pkg_resources is deprecated.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*find_unused_parameters=True was specified.*")
    for name in ("lightning", "lightning.fabric", "lightning_utilities", "timm", "dvclive"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    # OpenMP's threads spin while they wait for each other. Beside other work on the same cores that made 152 small
    # operations take 11 s instead of 0.1 s; asleep they cost nothing. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def limit_threads(params: Path) -> None:
    """Give OpenMP the number of threads that ``runtime.threads`` names; it is read when torch is first imported."""
    try:
        runtime = read_yaml(params).get("runtime")
    except UserError:
        return  # the stage itself will say what is wrong with the file
    threads = runtime.get("threads", 0) if isinstance(runtime, dict) else 0
    if isinstance(threads, int) and threads > 0:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def die_with_dvc(poll_seconds: float = 0.5) -> None:
    """End this process, and all that it started, soon after the ``dvc`` that runs it is gone.

    A SIGKILL of ``dvc`` leaves its children running, and an orphan would write beside the next run. DVC names the
    stage in ``DVC_STAGE``; without that variable (a command typed by hand, ``nohup``) nothing is watched.
    Between DVC and this process there may be a shell, so the ancestors up to DVC are watched, not only the parent.
    """
    if not os.environ.get("DVC_STAGE") or not Path("/proc/self/stat").exists():
        return
    ancestors = _ancestors_up_to_dvc()
    if not ancestors:  # killed while this process was starting: there is nothing left to watch
        print("the dvc that started this stage is gone; the next `dvc repro` starts it again", file=sys.stderr)
        os._exit(137)
    die_with(ancestors, poll_seconds)


def die_with(processes: Sequence[tuple[int, str]], poll_seconds: float = 0.5) -> None:
    """End this process, and all that it started, soon after one of ``processes`` (named by ``identity``) is gone."""

    def watch() -> None:
        while all(identity(pid) == (pid, started) for pid, started in processes):
            time.sleep(poll_seconds)
        kill_descendants(os.getpid())
        os._exit(137)

    threading.Thread(target=watch, name="die-with", daemon=True).start()


def identity(pid: int) -> tuple[int, str]:
    """A process's pid and start time, which name it even when pids are used again (Linux; elsewhere no time)."""
    return pid, _start_time(pid)


def kill_descendants(root: int) -> None:
    """SIGKILL every process below ``root`` (Linux: read from /proc)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            children.setdefault(_parent(int(entry.name)), []).append(int(entry.name))
    pending = list(children.get(root, []))
    while pending:
        pid = pending.pop()
        pending += children.get(pid, [])
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _stat_fields(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat after the command name: state, parent, ...; empty when the process is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[:1] == ["Z"] else fields


def _parent(pid: int) -> int:
    fields = _stat_fields(pid)
    return int(fields[1]) if fields else 0


def _start_time(pid: int) -> str:
    """Start time in clock ticks: with the pid it names a process even when pids are used again."""
    fields = _stat_fields(pid)
    return fields[19] if fields else ""


def _ancestors_up_to_dvc() -> list[tuple[int, str]]:
    """(pid, start time) of the ancestors from the parent up to the process that runs DVC; empty if that is gone.

    A Python program may run DVC as a library under any name: then the parent, or the shell's parent, is watched. What
    an orphan gets in the place of a parent, process 1 or a service manager, runs no Python.
    """
    found: list[tuple[int, str]] = []
    pid = os.getppid()
    while pid > 0:  # in a container DVC may be process 1
        found.append(identity(pid))
        words = _command_line(pid)
        if any(Path(word).name in ("dvc", "dvc.exe") for word in words[:3]) or words[1:3] == ["-m", "dvc"]:
            return found
        pid = _parent(pid)
    for count, (ancestor, _) in enumerate(found, start=1):
        words = _command_line(ancestor)
        name = Path((words or [""])[0]).name.lstrip("-")
        if words[1:3] == LAUNCHER:  # it is this project's, and outlives a DVC that dies before it has started a rank
            continue
        if name.startswith("python"):
            return found[:count]
        if name not in _SHELLS:
            break
    return []


LAUNCHER = ["-m", "torch.distributed.run"]
"""How ``distributed.launch`` calls torchrun."""

_SHELLS = ("sh", "bash", "dash", "zsh", "fish", "ksh", "ash")


def _command_line(pid: int) -> list[str]:
    """Words of a process's command; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
