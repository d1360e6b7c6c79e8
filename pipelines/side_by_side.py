"""The rows of an ablation with several seeds, some of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from stages.runtime.errors import UserError

Result = TypeVar("Result")


def run_rows(rows: Sequence[str], seeds: Sequence[int], jobs: int,
             run: Callable[[str, int], Result]) -> dict[tuple[str, int], Result]:
    """``run(row, seed)`` for every row and seed, ``jobs`` at a time.

    Of one seed the rows run one after the other, in their order, because they share a workspace and build on each
    other; it is the seed with the most rows left that goes on. Each is waited for in a thread, so ``run`` should leave
    the work to a process.

    Raises:
        UserError: what some row said, with row and seed; the rows that ran beside it have then ended, and no other has
            begun.
    """
    left = {seed: list(rows) for seed in seeds}
    found: dict[tuple[str, int], Result] = {}
    running: dict[Future[Result], tuple[str, int]] = {}
    errors: list[str] = []
    with ThreadPoolExecutor(jobs) as pool:
        while True:
            busy = {seed for _, seed in running.values()}
            idle = [seed for seed in seeds if left[seed] and seed not in busy]
            if idle and not errors and len(running) < jobs:
                seed = max(idle, key=lambda one: len(left[one]))
                row = left[seed].pop(0)
                running[pool.submit(run, row, seed)] = (row, seed)
                continue
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                row, seed = running.pop(future)
                try:
                    found[row, seed] = future.result()
                except UserError as error:
                    errors.append(f"row {row}, seed {seed}: {error}")
                    if running:
                        print("a row has failed; waiting for those that run beside it", flush=True)
    if errors:
        raise UserError("\n".join(errors))
    return found
