"""Per-image work on several processes, in the order of the items, with the same results for any number of them."""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

from stages.runtime import distributed, layout
from stages.runtime.errors import UserError
from stages.runtime.files import write_npz
from stages.runtime.progress import progress
from stages.runtime.settings import RuntimeSettings
from stages.runtime.stage import die_with, identity

Item = TypeVar("Item")
Result = TypeVar("Result")
Image = dict[str, Any]
"""A COCO image."""
ImageFunction = Callable[[Image], Mapping[str, np.ndarray]]


def worker_count(workers: int) -> int:
    """The number of processes that a setting means: 0 is one per core that this process may use."""
    if workers > 0:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_per_process(workers: int) -> int:
    """This process's share of what ``worker_count`` says, where several processes share the machine; at least 1."""
    return max(1, worker_count(workers) // distributed.local_world_size())


def loader_count(workers: int, device: str) -> int:
    """How many processes a ``DataLoader`` of this process shall have; to be asked before it starts them.

    On a GPU this process's share of the workers; none on a CPU, where they would only compete with the training. Where
    there are any, OpenCV has one thread from here on, as torch has in loaders: each of them would otherwise take every
    core. It has to be here, before they are forked: in a fork OpenCV would wait for threads that did not come along,
    which ends in a segmentation fault.

    Args:
        workers: as for ``workers_per_process``.
        device: its type, e.g. "cuda".
    """
    if device != "cuda":
        return 0
    cv2 = sys.modules.get("cv2")
    if cv2 is not None:
        cv2.setNumThreads(1)
    return workers_per_process(workers)


class one_thread:
    """Context in which numerical libraries use one thread, so that processes do not fight over cores.

    It is entered for one worker too: sums over threads may differ in their last bit from sums over one.
    """

    def __enter__(self) -> None:
        self._limits = threadpool_limits(limits=1)
        # Libraries that the function does not use are not imported for this.
        self._torch = sys.modules.get("torch")
        self._cv2 = sys.modules.get("cv2")
        if self._torch is not None:
            self._torch_threads = self._torch.get_num_threads()
            self._torch.set_num_threads(1)
        if self._cv2 is not None:
            self._cv2_threads = self._cv2.getNumThreads()
            self._cv2.setNumThreads(1)

    def __exit__(self, *error: object) -> None:
        if self._torch is not None:
            self._torch.set_num_threads(self._torch_threads)
        if self._cv2 is not None:
            self._cv2.setNumThreads(self._cv2_threads)
        self._limits.restore_original_limits()


class _Failure:
    """An exception on its way from a worker. A value, because joblib can deadlock when a task raises as it submits."""

    def __init__(self, error: Exception) -> None:
        self.text = "".join(traceback.format_exception(error))
        try:
            self.error: Exception = pickle.loads(pickle.dumps(error))  # noqa: S301 - what was pickled here
        except Exception as problem:  # some exceptions cannot be made again from their arguments
            self.error = RuntimeError(f"{type(error).__name__}: {error} (it cannot be pickled: {problem})")

    def raise_again(self) -> NoReturn:
        if isinstance(self.error, UserError):
            raise self.error
        raise self.error from RuntimeError(f"in a worker process:\n{self.text}")


_watched: set[tuple[int, str]] = set()


def _call(function: Callable[[Item], Result], item: Item, owner: tuple[int, str] | None,
          folder: str | None) -> tuple[Result | _Failure, float]:
    """Run one item in a worker, and the seconds that it took; a worker on the owner's machine ends when its owner does,
    also by a SIGKILL.

    Loky's workers live on between calls; ``folder`` is where the caller is now.
    """
    if owner is not None and owner not in _watched:
        _watched.add(owner)
        die_with([owner])
    if folder is not None and os.getcwd() != folder:
        os.chdir(folder)
    began = time.monotonic()
    with one_thread():
        try:
            result: Result | _Failure = function(item)
        except Exception as error:
            result = _Failure(error)
    return result, time.monotonic() - began


def parallel_map(function: Callable[[Item], Result], items: Sequence[Item], runtime: RuntimeSettings,
                 description: str, part: str = "", **facts: int) -> list[Result]:
    """``[function(item) for item in items]`` on ``runtime.workers`` processes of ``runtime.backend``.

    Args:
        function: picklable, and a function of its item alone; it writes its own files (atomically) if it has any.
        items: what to work on.
        runtime: workers and backend; ``dask`` and ``ray`` join the cluster that their own environment names.
        description, part, facts: of the progress bar.

    Raises:
        UserError: the first one that an item raised (in the order of the items), a backend that is not installed, or
            a worker that was killed.
    """
    workers = min(worker_count(runtime.workers), max(1, len(items)))
    facts["workers"] = worker_count(runtime.workers)
    if workers == 1 and runtime.backend == "loky":
        with one_thread():
            return [function(item) for item in progress(items, len(items), description, part=part, own=None,
                                                             **facts)]

    backend, options = _backend(runtime.backend, workers)
    failures: list[_Failure] = []
    # After a failure no more items are handed out and those under way are waited for: nothing has to be aborted.
    owner = identity(os.getpid()) if runtime.backend == "loky" and Path("/proc/self/stat").exists() else None
    folder = os.getcwd() if runtime.backend == "loky" else None
    calls = (delayed(_call)(function, item, owner, folder) for item in items if not failures)
    # joblib pins the BLAS threads of loky's workers; `_call` does it for the other backends and for torch and OpenCV.
    with parallel_config(backend=backend, n_jobs=workers, **options):
        if runtime.backend == "ray":  # its joblib backend gives lists only: portions keep the progress bar alive
            portions = iter(lambda: list(islice(calls, 16 * workers)), [])
            outcomes: Any = (outcome for portion in portions for outcome in Parallel()(portion))
        else:
            outcomes = Parallel(return_as="generator")(calls)
        results = []
        try:
            for outcome, _ in progress(outcomes, len(items), description, first=workers, part=part,
                                       own=itemgetter(1), **facts):
                if isinstance(outcome, _Failure):
                    failures.append(outcome)
                else:
                    results.append(outcome)
        except BrokenExecutor as error:
            raise UserError(f"{description}: a worker process was killed, perhaps for want of memory; set "
                            f"runtime.workers below {workers} (finished items are kept)") from error
    if failures:
        failures[0].raise_again()
    return results


def map_images(function: ImageFunction, images: Sequence[Image],
               folder: Path, runtime: RuntimeSettings, description: str, part: str = "") -> None:
    """Write ``function(image)``, the arrays of a COCO image, to one ``.npz`` each; those that exist are not made again.

    Arguments and errors as for ``parallel_map``.
    """
    missing = [image for image in images if not (folder / f"{layout.image_key(image)}.npz").exists()]
    parallel_map(partial(_write, function, folder), missing, runtime, description, part)


def _write(function: ImageFunction, folder: Path, image: Image) -> None:
    write_npz(folder / f"{layout.image_key(image)}.npz", **function(image))


def _backend(name: str, workers: int) -> tuple[str, dict[str, Any]]:
    """Make joblib's backend ready and give its name and options."""
    if name == "loky":
        return name, {"inner_max_num_threads": 1}
    try:
        if name == "dask":
            _start_dask(workers)
        else:
            _start_ray(workers)
    except ImportError as error:
        raise UserError(f"runtime.backend: {name} is not installed ({error}); "
                        f"`pip install 'weakmask[{name}]'`, or use loky") from None
    return name, {}


_clients: list[Any] = []  # Dask itself keeps only weak references to them


def _start_dask(workers: int) -> None:
    """Join the cluster at DASK_SCHEDULER_ADDRESS, or start one on this machine, unless this process has one."""
    from distributed import Client, get_client

    try:
        get_client()
    except ValueError:
        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        _clients.append(Client(address) if address else Client(n_workers=workers, threads_per_worker=1, processes=True,
                                                               dashboard_address=None))


def _start_ray(workers: int) -> None:
    """Join the cluster at RAY_ADDRESS, or start one on this machine, unless this process has one."""
    import logging

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.util.joblib import register_ray

    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        ray.init(address=address, num_cpus=None if address else workers, log_to_driver=False, include_dashboard=False,
                 logging_level=logging.ERROR)
    register_ray()
