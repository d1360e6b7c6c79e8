import functools
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from stages.runtime import parallel
from stages.runtime.errors import UserError
from stages.runtime.files import write_npz
from stages.runtime.parallel import parallel_map, worker_count
from stages.runtime.settings import RuntimeSettings

ONE, TWO = RuntimeSettings(workers=1), RuntimeSettings(workers=2)


def square(number):
    return number * number


def late_first(number):
    time.sleep(0.2 if number == 0 else 0.0)
    return number


def picky(number):
    if number in (3, 5):
        raise UserError(f"image {number}: cannot be read")
    return number


def broken(number):
    return 1 / number


class AwkwardError(Exception):
    def __init__(self, first, second):
        super().__init__(f"needs two arguments: {first} {second}")


def awkward(number):
    raise AwkwardError(number, number)


def fail_first(folder, number):
    Path(folder, str(number)).touch()
    time.sleep(0.01)
    if number == 0:
        raise UserError("the first")


def die(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def whole_image(folder, number):
    """Arithmetic whose last bits depend on how many threads share it, and a file of its own."""
    rng = np.random.default_rng(number)
    matrix = rng.standard_normal((96, 96)).astype(np.float32)
    result = matrix @ matrix.T @ matrix
    write_npz(Path(folder) / f"{number}.npz", result=result)
    return result


def threads(_):
    import cv2
    import torch
    from threadpoolctl import threadpool_info

    with parallel.one_thread():
        return os.getpid(), torch.get_num_threads(), cv2.getNumThreads(), max(
            (item["num_threads"] for item in threadpool_info()), default=1)


def _bytes_of(tmp_path, runtime):
    folder = tmp_path / f"{runtime.backend}{runtime.workers}"
    results = parallel_map(functools.partial(whole_image, str(folder)), range(6), runtime, "images")
    return [result.tobytes() for result in results], {
        path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_results_in_the_order_of_the_items():
    assert parallel_map(square, [3, 1, 2], ONE, "squares") == [9, 1, 4]
    assert parallel_map(late_first, list(range(8)), TWO, "late") == list(range(8))


def test_nothing_to_do():
    for runtime in (ONE, TWO, RuntimeSettings(workers=0)):
        assert parallel_map(square, [], runtime, "nothing") == []


def test_any_number_of_workers_gives_the_same_bytes(tmp_path):
    assert _bytes_of(tmp_path, ONE) == _bytes_of(tmp_path, TWO)


@pytest.mark.parametrize("runtime", [ONE, TWO])
def test_the_first_error_of_the_user_travels(runtime):
    with pytest.raises(UserError, match="^image 3: cannot be read$"):
        parallel_map(picky, list(range(8)), runtime, "picky")
    assert parallel_map(square, [2, 3], runtime, "afterwards") == [4, 9]


@pytest.mark.parametrize("runtime", [ONE, TWO])
def test_a_defect_is_not_hidden(runtime):
    with pytest.raises(ZeroDivisionError) as caught:
        parallel_map(broken, [1, 2, 0, 4], runtime, "broken")
    assert "in broken" in "".join(traceback.format_exception(caught.value)), "where it happened"
    with pytest.raises(Exception, match="two arguments"):
        parallel_map(awkward, [1, 2], runtime, "awkward")


def test_failing_again_and_again_ends():
    for _ in range(15):
        with pytest.raises(ZeroDivisionError):
            parallel_map(broken, [0, 0, 0, 4], TWO, "broken")
        assert parallel_map(square, [2, 3], TWO, "between") == [4, 9]


def test_no_more_items_are_handed_out_after_a_failure(tmp_path):
    with pytest.raises(UserError):
        parallel_map(functools.partial(fail_first, str(tmp_path)), list(range(200)), TWO, "failing")
    assert 1 <= len(list(tmp_path.iterdir())) < 100


def test_a_killed_worker_is_an_error_of_the_user():
    with pytest.raises(UserError, match=r"dying: a worker process was killed.*set runtime.workers below 2"):
        parallel_map(die, list(range(4)), TWO, "dying")
    assert parallel_map(square, [2, 3], TWO, "afterwards") == [4, 9]


@pytest.mark.parametrize("runtime", [ONE, TWO])
def test_libraries_use_one_thread(runtime):
    import torch

    before = torch.get_num_threads()
    for pid, *counts in parallel_map(threads, [0, 1, 2], runtime, "threads"):
        assert (pid == os.getpid()) == (runtime is ONE)
        assert counts[0] == 1
        assert counts[1] <= 1
        assert counts[2] == 1
    assert torch.get_num_threads() == before


def test_workers_of_a_setting():
    assert worker_count(3) == 3
    assert worker_count(0) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_backend_that_is_not_installed_is_one_line(monkeypatch, backend, module):
    monkeypatch.setitem(sys.modules, module, None)
    expected = rf"runtime.backend: {backend} is not installed .*pip install .*{backend}"
    with pytest.raises(UserError, match=expected) as caught:
        parallel_map(square, [1, 2], RuntimeSettings(workers=2, backend=backend), "squares")
    assert "\n" not in str(caught.value)


def _check_backend(tmp_path, backend):
    runtime = RuntimeSettings(workers=2, backend=backend)
    assert parallel_map(square, [3, 1, 2], runtime, "squares") == [9, 1, 4]
    assert parallel_map(square, [3], RuntimeSettings(workers=1, backend=backend), "one") == [9]
    assert parallel_map(square, [], runtime, "nothing") == []
    assert _bytes_of(tmp_path, runtime) == _bytes_of(tmp_path, ONE)
    with pytest.raises(UserError, match="^image 3: cannot be read$"):
        parallel_map(picky, list(range(8)), runtime, "picky")
    with pytest.raises(ZeroDivisionError):
        parallel_map(broken, [1, 2, 0, 4], runtime, "broken")
    assert parallel_map(square, list(range(20)), runtime, "afterwards") == [number ** 2 for number in range(20)]


def test_dask(tmp_path):
    distributed = pytest.importorskip("distributed")
    try:
        _check_backend(tmp_path, "dask")
    finally:
        client = distributed.get_client()
        client.shutdown()


def test_ray(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # its workers import this module
    try:
        _check_backend(tmp_path, "ray")
    finally:
        ray.shutdown()


def _where(_: int) -> str:
    return os.getcwd()


def test_workers_follow_the_caller_to_another_folder(tmp_path, monkeypatch):
    """Loky keeps its workers from one call to the next; relative paths must mean the same to them as to the caller."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert set(parallel_map(_where, [1, 2, 3], RuntimeSettings(workers=2), "folders")) == {str(tmp_path / name)}


def test_processes_on_one_machine_share_its_workers(monkeypatch):
    monkeypatch.setattr(parallel, "worker_count", lambda workers: workers or 96)
    assert parallel.workers_per_process(0) == 96
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert [parallel.workers_per_process(workers) for workers in (0, 16, 3)] == [12, 2, 1]


class _Threads(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        cv2.resize(np.zeros((999, 999, 3), np.uint8), (777, 777))
        return cv2.getNumThreads()


def test_loaders_of_a_gpu_have_one_thread_each(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.resize(np.zeros((999, 999, 3), np.uint8), (777, 777))  # starts threads, which no fork takes along
        assert parallel.loader_count(4, "cpu") == 0 and cv2.getNumThreads() == 4
        count = parallel.loader_count(4, "cuda")
        assert count == 2
        assert [int(found) for found in DataLoader(_Threads(), num_workers=count, timeout=60)] == [1, 1]
    finally:
        cv2.setNumThreads(before)
