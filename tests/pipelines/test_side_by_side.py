from __future__ import annotations

import threading

import pytest

from pipelines.side_by_side import run_rows
from stages.runtime.errors import UserError

ROWS = ("a", "b", "c")


class _Watched:
    """Notes in which order rows begin, and how many of a seed run at once."""

    def __init__(self, together=1, fails=()):
        self.order, self.together, self.fails = [], together, fails
        self.lock, self.running, self.most = threading.Lock(), [], 0
        self.meeting = threading.Barrier(together)

    def __call__(self, row, seed):
        with self.lock:
            assert seed not in self.running, "two rows in one workspace"
            self.running.append(seed)
            self.order.append((row, seed))
            self.most = max(self.most, len(self.running))
        if self.together > 1:
            self.meeting.wait(timeout=20)  # only where that many really run side by side
        with self.lock:
            self.running.remove(seed)
        if (row, seed) in self.fails:
            raise UserError(f"no luck with {row}")
        return f"{row}{seed}"


def test_every_row_with_every_seed():
    watched = _Watched()
    found = run_rows(ROWS, (4, 7), 1, watched)
    assert found == {(row, seed): f"{row}{seed}" for row in ROWS for seed in (4, 7)}
    assert watched.order == [("a", 4), ("a", 7), ("b", 4), ("b", 7), ("c", 4), ("c", 7)]
    assert watched.most == 1
    assert run_rows((), (0,), 1, watched) == {}


def test_two_at_a_time_and_of_one_seed_in_order():
    watched = _Watched(together=2)
    found = run_rows(("a", "b", "c", "d"), (0, 1, 2), 2, watched)  # 12: they can all meet in pairs
    assert len(found) == 12
    assert watched.most == 2
    for seed in (0, 1, 2):
        assert [row for row, own in watched.order if own == seed] == ["a", "b", "c", "d"]


def test_a_failure_names_row_and_seed_and_nothing_begins_after_it():
    watched = _Watched(fails={("b", 7)})
    with pytest.raises(UserError, match="^row b, seed 7: no luck with b$"):
        run_rows(ROWS, (4, 7), 1, watched)
    assert watched.order == [("a", 4), ("a", 7), ("b", 4), ("b", 7)]


def test_rows_that_fail_side_by_side_are_all_named(capsys):
    watched = _Watched(together=2, fails={("a", 4), ("a", 7)})
    with pytest.raises(UserError) as caught:
        run_rows(ROWS, (4, 7), 2, watched)
    assert sorted(str(caught.value).splitlines()) == ["row a, seed 4: no luck with a", "row a, seed 7: no luck with a"]
    assert len(watched.order) == 2


def test_what_is_no_user_s_error_is_not_hidden():
    def broken(row, seed):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_rows(ROWS, (0,), 1, broken)
