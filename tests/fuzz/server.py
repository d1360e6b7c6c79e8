"""Run one function in a forked process with limits on memory and time, and say how it ended.

The parent has everything imported, so a case costs a fork and no start of Python. Nothing a case does reaches the
parent: it may leak, hang, crash or take all memory that it is given.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

from stages.runtime.errors import UserError

OUTCOMES = ("refused", "accepted", "traceback", "hang", "memory", "wrong")
"""Refused with one UserError; accepted, and what came out was checked; and four ways to break the promise. A crash of
native code counts among the tracebacks."""
BROKEN = OUTCOMES[2:]
_ASKED = "refused, but only when memory ran out:"
_OUT_OF_MEMORY = ("MemoryError", "Unable to allocate", "Cannot allocate", "Insufficient memory", "bad_alloc")


class Wrong(Exception):
    """An accepted case whose result the independent check refuses, or a refusal that is not as promised."""


@dataclass(frozen=True)
class Limits:
    """What a case may take.

    Attributes:
        cpu: processor time [s]; the machine may be loaded, so that the clock on the wall says little.
        wall: how long it may sleep without doing anything [s].
        memory: growth over the forked process [bytes].
        space: growth of the address space; what is asked for and never filled counts here only [bytes].
    """

    cpu: int = 20
    wall: float = 60.0
    memory: int = 1 << 30
    space: int = 2 << 30


@dataclass(frozen=True)
class Outcome:
    """How a case ended: one of ``OUTCOMES``, what was said, and the processor time that it took [s]."""

    name: str
    message: str = ""
    seconds: float = 0.0


def run_limited(function: Callable[[], str | None], limits: Limits) -> Outcome:
    """Run ``function`` in a child of its own; see :func:`_run`.

    A file that lies about its size may ask for much and fill nothing, and a refusal that follows is right. So what ran
    into the limit on the address space runs once more with more of it, and then what was filled counts.
    """
    outcome = _run(function, limits, strict=True)
    if outcome.name == "memory" and outcome.message.startswith(_ASKED):
        return _run(function, replace(limits, space=3 * limits.space), strict=False)
    return outcome


def _run(function: Callable[[], str | None], limits: Limits, strict: bool) -> Outcome:
    """One run in a child.

    Args:
        function: raises UserError (a refusal) or :class:`Wrong`, or returns None (accepted and right) or the message of
            a refusal that it looked at itself.
        limits: of the child.
        strict: whether a refusal that speaks of memory counts as "memory".
    """
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receive)
        os.setsid()
        faulthandler.disable()  # a test runner's: a crash is told by its signal
        os.write(send, _pages(1).to_bytes(8, "little"))
        _limit(limits)
        result = _call(function, strict)
        with os.fdopen(send, "wb") as pipe:
            pipe.write(json.dumps(result).encode())
        os._exit(0)
    os.close(send)
    content, timed_out = _collect(receive, pid, limits.wall)
    before, content = int.from_bytes(content[:8], "little"), content[8:]
    _, status, usage = os.wait4(pid, 0)
    _kill_group(pid)  # what it started itself
    seconds = usage.ru_utime + usage.ru_stime
    ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    if timed_out or ended == signal.SIGXCPU or (ended == signal.SIGKILL and seconds >= limits.cpu):
        return Outcome("hang", f"stopped after {seconds:.0f} s of processor time", seconds)
    if usage.ru_maxrss * 1024 - before > limits.memory:
        return Outcome("memory", f"took {(usage.ru_maxrss * 1024 - before) / 1e6:.0f} MB", seconds)
    if ended is not None or not content:
        reason = f"ended by {signal.Signals(ended).name}" if ended is not None else f"exit status {status >> 8}"
        return Outcome("traceback", reason, seconds)
    name, message = json.loads(content)
    return Outcome(name, message, seconds)


def _limit(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu, limits.cpu + 2))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    size = _pages(0) + limits.space
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    silent = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(silent, number)


def _call(function: Callable[[], str | None], strict: bool) -> tuple[str, str]:
    """(outcome, message) of a function in this process."""
    try:
        refusal = function()
        name, message = ("refused", refusal) if refusal else ("accepted", "")
    except UserError as error:
        name, message = "refused", str(error)
    except Wrong as error:
        name, message = "wrong", str(error)
    except MemoryError:
        return "memory", traceback.format_exc()[-3000:]
    except BaseException:
        text = traceback.format_exc()
        return ("memory" if any(word in text for word in _OUT_OF_MEMORY) else "traceback"), _printable(text[-3000:])
    if strict and any(word in message for word in _OUT_OF_MEMORY):
        return "memory", f"{_ASKED} {_printable(message)}"
    return name, _printable(message)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _collect(receive: int, pid: int, wall: float) -> tuple[bytes, bool]:
    """All that the child says, and whether it had to be killed because it slept for ``wall`` seconds."""
    content = b""
    with os.fdopen(receive, "rb", buffering=0) as pipe:
        last, asleep_since = -1.0, time.monotonic()
        while True:
            if not select.select([pipe], [], [], 0.5)[0]:
                spent = _processor_time(pid)
                if spent != last:  # it works, however little of the processor it gets
                    last, asleep_since = spent, time.monotonic()
                elif time.monotonic() - asleep_since > wall and not _runnable(pid):
                    _kill_group(pid)
                    return content, True
                continue
            piece = pipe.read(1 << 16)
            if not piece:
                return content, False
            content += piece


def _stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def _processor_time(pid: int) -> float:
    fields = _stat(pid)
    return float(int(fields[11]) + int(fields[12]))


def _runnable(pid: int) -> bool:
    """Waiting for the processor, not for something that may never come."""
    return _stat(pid)[0] in ("R", "D")


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _pages(column: int) -> int:
    """Bytes of this process: 0 for the address space, 1 for what is in memory (Linux)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[column]) * os.sysconf("SC_PAGE_SIZE")

