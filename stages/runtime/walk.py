"""One way to look at many images with a network: resume, decoding ahead, several devices."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch

from stages.runtime import devices, distributed
from stages.runtime.files import write_json, write_npz
from stages.runtime.precision import autocast
from stages.runtime.progress import progress
from stages.runtime.settings import RuntimeSettings
from stages.runtime.together import wait_for_all
from stages.runtime.work import Work

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Result = Mapping[str, Any] | list[Any]
"""Arrays by name for ``.npz``, anything that JSON can hold for ``.json``."""

Infer = Callable[[str, Item, Loaded], Result]
"""Of a sub-folder, an item and what was loaded of it: the item's result."""

InferTogether = Callable[[list[tuple[str, Item, Loaded]]], Sequence[Result]]
"""The same of several items at once: their results, in their order."""

_AHEAD = 4


@dataclass(frozen=True)
class Together(Generic[Item]):
    """Which items a network looks at at once.

    Attributes:
        most: of them.
        alike: what all of them share, e.g. their size.
    """

    most: int
    alike: Callable[[Item], Hashable]


def ahead(items: Sequence[Item], load: Callable[[Item], Loaded], description: str, total: int | None = None,
          initial: int = 0, *, first: int = 1, part: str | Callable[[Item], str] = "", **facts: int
          ) -> Iterator[tuple[Item, Loaded]]:
    """Pass items on with what ``load`` (decoding, cropping) makes of them; it runs a few items ahead in two threads.

    Args:
        items: what to load.
        load: called once per item, in their order; its errors are raised when the item's turn comes.
        description: of the progress bar.
        total, initial: of the bar, where it shall count items that are done already.
        first, part, facts: of the bar, too.
    """
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[tuple[Item, Future[Loaded]]] = deque()

        def pairs() -> Iterator[tuple[Item, Loaded]]:
            try:
                for item in items:
                    waiting.append((item, pool.submit(load, item)))
                    if len(waiting) > _AHEAD:
                        first, future = waiting.popleft()
                        yield first, future.result()
                while waiting:
                    first, future = waiting.popleft()
                    yield first, future.result()
            finally:  # after an error, or when nobody wants more, nothing shall go on
                for _, future in waiting:
                    future.cancel()

        of_pair = part if isinstance(part, str) else lambda pair: part(pair[0])
        yield from progress(pairs(), len(items) if total is None else total, description, initial, first=first,
                            part=of_pair, own=None, **facts)


def walk_stage(file: str, params: Path, runtime: RuntimeSettings, items: Mapping[str, Sequence[Item]], *,
               key: Callable[[Item], str], load: Callable[[Item], Loaded],
               build: Callable[[torch.device], Infer[Item, Loaded] | InferTogether[Item, Loaded]],
               inputs: Sequence[Path], parameters: object, output: Path | None, description: str, suffix: str = ".npz",
               write: Callable[[Path, Any], None] | None = None,
               finish: Callable[[Path], Mapping[str, str | Path]] | None = None, part: str = "",
               together: Together[Item] | None = None) -> None:
    """The whole of a stage that looks at images, one after the other, with a network: one result file per item.

    With ``runtime.processes`` each process takes every so-many-th item on a device of its own. Items whose file is
    there from an interrupted run are left out.

    Args:
        file: ``__file__`` of the stage's module.
        params: settings file, for further processes.
        runtime: device, precision and processes.
        items: sub-folder of the output (empty: the output itself, and items of train) -> items.
        key: stem of an item's file.
        load: what can be done ahead on the CPU: reading, decoding.
        build: makes, on the process's device, ``infer(sub-folder, item, loaded)``, which gives the item's result; it is
            only called where something is missing. Gradients are off, and what is called after it runs in the mixed
            precision of ``runtime.precision``: ``exact_products`` and ``unmixed`` keep it out of what is no network.
        inputs: files and folders that the results depend on.
        parameters: settings that they depend on beside the precision.
        output: folder of the results; none where only what ``finish`` makes of them is wanted.
        description: of the progress bar.
        suffix: ``.npz`` (arrays by name), ``.json``, or what ``write`` makes.
        write: writes a result to a path, atomically.
        finish: called with the folder of all results, on one process; it may write further files beside that folder and
            gives ``{name in the work folder: destination}`` of them.
        part: of the stage, where it walks several times (see ``Work``).
        together: if several items are looked at at once; then ``build`` makes ``infer([(sub-folder, item, loaded)])``,
            which gives their results. Which items come together does not depend on where a run was cut off.
    """
    distributed.launch(file, params, runtime.processes)
    with Work(file, inputs, [runtime.precision, parameters], part=part) as work:
        folder = work.subfolder("results")
        walk(folder, runtime, items, key=key, load=load, build=build, description=description, suffix=suffix,
             write=write, together=together)
        if distributed.rank() == 0:
            further = finish(folder) if finish is not None else {}
            work.publish({**({} if output is None else {"results": output}), **further})


def walk(folder: Path, runtime: RuntimeSettings, items: Mapping[str, Sequence[Item]], *, key: Callable[[Item], str],
         load: Callable[[Item], Loaded],
         build: Callable[[torch.device], Infer[Item, Loaded] | InferTogether[Item, Loaded]],
         description: str, suffix: str = ".npz", write: Callable[[Path, Any], None] | None = None,
         together: Together[Item] | None = None) -> None:
    """The walk of ``walk_stage``, whose arguments it takes, inside a work folder, for a stage that does more.

    Args:
        folder: of the results; when this returns, on any process, those of all processes are there.
    """
    write = write or (_write_arrays if suffix == ".npz" else write_json)
    wait_for_all()  # the first process tidies up the work folder before any other writes into it
    for name in items:
        (folder / name).mkdir(parents=True, exist_ok=True)
    everything = [(name, item) for name, group in items.items() for item in group]
    own = everything[distributed.rank()::distributed.world_size()]

    def path(name: str, item: Item) -> Path:
        return folder / name / f"{key(item)}{suffix}"

    # A batch that lacks a file is looked at whole: results may differ in the last bits with what else is in it.
    missing = [batch for batch in _batches(own, together) if not all(path(*pair).exists() for pair in batch)]
    if missing:
        with torch.no_grad():
            device = devices.resolve(runtime.device)
            infer = _of_several(build(device), together)
        looked_at = [pair for batch in missing for pair in batch]
        with torch.no_grad(), autocast(runtime.precision, device):
            batches, members = deque(missing), []
            rank = {"rank": distributed.rank()} if distributed.world_size() > 1 else {}
            for (name, item), loaded in ahead(looked_at, lambda pair: load(pair[1]), description, len(own),
                                              len(own) - len(looked_at), first=len(missing[0]),
                                              part=lambda pair: pair[0] or "train", **rank):
                members.append((name, item, loaded))
                if len(members) < len(batches[0]):
                    continue
                for pair, result in zip(batches.popleft(), infer(members), strict=True):
                    write(path(*pair), result)
                members = []
    wait_for_all()


def _of_several(infer: Infer[Item, Loaded] | InferTogether[Item, Loaded], together: Together[Item] | None
                ) -> InferTogether[Item, Loaded]:
    """What looks at several items, of what ``build`` made: which of the two kinds that is, ``together`` tells."""
    if together is not None:
        return cast(InferTogether[Item, Loaded], infer)
    alone = cast(Infer[Item, Loaded], infer)
    return lambda members: [alone(*member) for member in members]


def _batches(pairs: Sequence[tuple[str, Item]], together: Together[Item] | None) -> list[list[tuple[str, Item]]]:
    """Pairs of sub-folder and item, those that are looked at at once next to each other; alone if nothing is said."""
    if together is None:
        return [[pair] for pair in pairs]
    groups: dict[Hashable, list[tuple[str, Item]]] = {}
    for pair in pairs:
        groups.setdefault(together.alike(pair[1]), []).append(pair)
    return [group[first:first + together.most] for group in groups.values()
            for first in range(0, len(group), together.most)]


def _write_arrays(path: Path, arrays: Any) -> None:
    write_npz(path, **arrays)
