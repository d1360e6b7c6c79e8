import threading
import time
from pathlib import Path

import numpy as np
import pytest
import staged
import torch
from agents import run_two
from staged import CPU, clone, walk_all

from stages.runtime import fingerprint
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, read_npz
from stages.runtime.walk import Together, ahead

NAMES = {"a": [1, 2, 3], "b": [4, 5]}


@pytest.fixture
def stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fingerprint, "CODE", tmp_path)
    return clone(tmp_path)


def _values(folder="out"):
    paths = sorted(Path(folder).rglob("*.npz"))
    return {str(path.relative_to(folder)): int(read_npz(path)["value"][0]) for path in paths}


EXPECTED = {"a/1.npz": 10, "a/2.npz": 20, "a/3.npz": 30, "b/4.npz": 40, "b/5.npz": 50}


def test_one_file_per_item(stage):
    walk_all(stage, NAMES, Path("out"))
    assert _values() == EXPECTED


def test_without_parts_and_as_json(stage):
    walk_all(stage, {"": [7]}, Path("out"), infer=lambda part, item, loaded: [part, item, loaded], suffix=".json")
    assert read_json("out/7.json") == ["", 7, 70]


def test_it_goes_on_where_it_was_and_builds_only_what_it_needs(stage):
    seen, built = [], []

    def infer(part, item, loaded):
        assert not torch.is_grad_enabled()
        if item == 3 and len(built) == 1:
            raise UserError("image 3: broken")
        seen.append(item)
        return {"value": np.array([loaded])}

    with pytest.raises(UserError, match="image 3: broken"):
        walk_all(stage, NAMES, Path("out"), infer, built)
    assert seen == [1, 2]
    walk_all(stage, NAMES, Path("out"), infer, built)
    assert seen == [1, 2, 3, 4, 5]
    assert _values() == EXPECTED
    with pytest.raises(KeyError):  # everything is there, so nothing is built; what comes after it failed
        walk_all(stage, NAMES, Path("out"), infer, built, finish=lambda folder: {}["x"])
    walk_all(stage, NAMES, Path("out"), infer, built)
    assert len(built) == 3


@pytest.mark.parametrize(("precision", "wanted"), [
    ("32-true", torch.float32), ("16-mixed", torch.bfloat16), ("bf16-mixed", torch.bfloat16)])
def test_networks_are_asked_in_the_precision(stage, precision, wanted):
    layer, seen = torch.nn.Linear(2, 2), []

    def infer(part, item, loaded):
        assert not torch.is_grad_enabled()
        seen.append(layer(torch.ones(1, 2)).dtype)
        return {"value": np.array([loaded])}

    class Built(list):
        def append(self, device):  # what a network measures of itself when it is made is single
            super().append((device, layer(torch.ones(1, 2)).dtype))

    built = Built()
    walk_all(stage, NAMES, Path("out"), infer, built, runtime=CPU.model_copy(update={"precision": precision}))
    assert seen == [wanted] * 5 and built == [(torch.device("cpu"), torch.float32)]
    assert not torch.is_autocast_enabled("cpu")


def test_another_precision_begins_anew(stage):
    seen = []

    def infer(part, item, loaded):
        if item == 3 and len(seen) == 2:
            raise UserError("image 3: broken")
        seen.append(item)
        return {"value": np.array([loaded])}

    with pytest.raises(UserError):
        walk_all(stage, NAMES, Path("out"), infer)
    walk_all(stage, NAMES, Path("out"), infer, runtime=CPU.model_copy(update={"precision": "bf16-mixed"}))
    assert seen == [1, 2, 1, 2, 3, 4, 5]


def test_alike_items_are_looked_at_together_and_after_a_failure_in_the_same_company(stage):
    seen, broken = [], [7]

    def infer(members):
        if broken and broken[0] in {item for _, item, _ in members}:
            raise UserError(f"image {broken.pop()}: broken")
        seen.append([(part, item) for part, item, _ in members])
        return [{"value": np.array([loaded])} for _, _, loaded in members]

    names, odd_and_even = {"a": range(1, 8), "b": range(8, 10)}, Together(3, lambda item: item % 2)
    batches = [[("a", 1), ("a", 3), ("a", 5)], [("a", 7), ("b", 9)], [("a", 2), ("a", 4), ("a", 6)], [("b", 8)]]
    with pytest.raises(UserError, match="image 7"):
        walk_all(stage, names, Path("out"), infer, together=odd_and_even)
    next(Path().rglob("a/3.npz")).unlink()  # as if it had been cut off between the files of a batch
    walk_all(stage, names, Path("out"), infer, together=odd_and_even)
    assert seen == [batches[0], *batches]
    assert _values() == {f"{part}/{item}.npz": item * 10 for part, items in names.items() for item in items}


def test_what_comes_after_may_add_results(stage):
    def finish(folder):
        path = folder.parent / "summary.txt"
        path.write_text(str(len(list(folder.rglob("*.npz")))))
        return {"summary.txt": "out.txt"}

    walk_all(stage, NAMES, Path("out"), finish=finish)
    assert Path("out.txt").read_text() == "5"


def test_nothing_to_look_at(stage):
    built = []
    walk_all(stage, {"train": [], "val": []}, Path("out"), built=built)
    assert sorted(path.name for path in Path("out").iterdir()) == ["train", "val"]
    assert built == []


@pytest.mark.parametrize("machines", [1, 2])
def test_two_processes_share_the_items(stage, tmp_path, machines):
    run_two(staged.__file__, "walk", machines=machines, cwd=tmp_path)
    assert _values() == EXPECTED
    ranks = {path.stem: int(read_npz(path)["value"][1]) for path in Path("out").rglob("*.npz")}
    assert ranks == {"1": 0, "2": 1, "3": 0, "4": 1, "5": 0}


def test_loading_runs_ahead_in_order_and_stops_when_nobody_wants_more():
    loaded, lock = [], threading.Lock()

    def load(item):
        with lock:
            loaded.append(item)
        return -item

    pairs = ahead(range(100), load, "items")
    assert next(pairs) == (0, 0)
    deadline = time.monotonic() + 10
    while len(loaded) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 5 <= len(loaded) <= 8, "a few items ahead, not all"
    pairs.close()
    assert len(loaded) < 12
    assert list(ahead([3, 1, 2], load, "items")) == [(3, -3), (1, -1), (2, -2)]


def test_an_error_while_loading_comes_at_its_turn():
    def load(item):
        if item == 2:
            raise UserError("image 2 is damaged")
        return item

    seen = []
    with pytest.raises(UserError, match="image 2"):
        for item, _ in ahead([1, 2, 3], load, "items"):
            seen.append(item)
    assert seen == [1]
