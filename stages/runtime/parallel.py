"""Per-image work on several processes, in the order of the items, with the same results for any number of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from stages.runtime.errors import UserError
from stages.runtime.progress import progress
from stages.runtime.settings import RuntimeSettings

Item = TypeVar("Item")
Result = TypeVar("Result")


def worker_count(workers: int) -> int:
    """The number of processes that a setting means: 0 is one per core that this process may use."""
    if workers > 0:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class one_thread:
    """Context in which numerical libraries use one thread, so that processes do not fight over cores.

    It is entered for one worker too: sums over threads may differ in their last bit from sums over one.
    """

    def __enter__(self) -> None:
        import sys

        from threadpoolctl import threadpool_limits

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


def _call(function: Callable[[Item], Result], item: Item) -> Result | UserError:
    """Run one item; the user's errors travel back as values, so that every backend reports them alike."""
    with one_thread():
        try:
            return function(item)
        except UserError as error:
            return UserError(str(error))


def parallel_map(function: Callable[[Item], Result], items: Sequence[Item], runtime: RuntimeSettings,
                 description: str) -> list[Result]:
    """``[function(item) for item in items]`` on ``runtime.workers`` processes of ``runtime.backend``.

    Args:
        function: picklable, and a function of its item alone; it writes its own files (atomically) if it has any.
        items: what to work on.
        runtime: workers and backend; ``dask`` and ``ray`` join the cluster that their own environment names.
        description: of the progress bar.

    Raises:
        UserError: the first one that an item raised (in the order of the items), or a backend that is not installed.
    """
    workers = min(worker_count(runtime.workers), max(1, len(items)))
    if workers == 1 and runtime.backend == "loky":
        outcomes: Any = (_call(function, item) for item in items)
        return _collect(outcomes, len(items), description)

    from joblib import Parallel, delayed, parallel_config

    backend, options = _backend(runtime.backend, workers)
    # joblib pins the BLAS threads of loky's workers; `_call` does it for the other backends and for torch and OpenCV.
    with parallel_config(backend=backend, n_jobs=workers, **options):
        outcomes = Parallel(return_as="generator")(delayed(_call)(function, item) for item in items)
        return _collect(outcomes, len(items), description)


def _collect(outcomes: Any, total: int, description: str) -> list[Any]:
    results = []
    for outcome in progress(outcomes, total, description):
        if isinstance(outcome, UserError):
            raise outcome
        results.append(outcome)
    return results


def _backend(name: str, workers: int) -> tuple[str, dict[str, Any]]:
    """Make joblib's backend ready and give its name and options."""
    if name == "loky":
        return name, {"inner_max_num_threads": 1}
    try:
        if name == "dask":
            from distributed import Client, get_client

            try:
                get_client()
            except ValueError:
                address = os.environ.get("DASK_SCHEDULER_ADDRESS")
                Client(address) if address else Client(n_workers=workers, threads_per_worker=1, processes=True,
                                                       dashboard_address=None)
            return name, {}
        import ray
        from ray.util.joblib import register_ray

        if not ray.is_initialized():
            address = os.environ.get("RAY_ADDRESS")
            ray.init(address=address, num_cpus=None if address else workers, log_to_driver=False,
                     include_dashboard=False)
        register_ray()
        return name, {}
    except ImportError as error:
        raise UserError(f"runtime.backend: {name} is not installed ({error}); "
                        f"`pip install 'weakmask[{name}]'`, or use loky") from None
