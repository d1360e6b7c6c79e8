import pytest

from pipelines.rehearsal.projection import Counts, Scale, each, full_bytes, full_seconds, published
from pipelines.rehearsal.shortened import Planned
from pipelines.rehearsal.watch import Measured
from stages.prepare.settings import DatasetSettings

SCALE = Scale(Counts(4, 2), Counts(1000, 100, 3.0))


def _loop(items, seconds, start, **facts):
    return {"items": items, "seconds": seconds, "start": start, "first": 1, **facts}


def test_the_pace_leaves_out_the_start():
    assert each(_loop(2, 10.0, 9.0)) == 1.0
    assert each(_loop(1, 10.0, 10.0)) == 10.0
    assert each({"items": 6, "seconds": 8.0, "start": 6.0, "first": 2}) == 0.5


def test_items_of_the_full_run():
    assert [SCALE.items({"items": count}) for count in (4, 2, 6)] == [1000, 100, 1100]
    assert SCALE.items({"items": 3}) == 750  # one has no labels
    assert SCALE.items({"items": 12}) == 2200
    assert SCALE.samples(4) == 1000 and SCALE.samples(3) == 750 and SCALE.samples(9) == 3000


def test_seconds_of_a_training():
    """Five passes over 1,000 images in batches of 16, a step of 4 in 2 s: 310 steps of 8 s, and 5 s beside them."""
    plan = Planned("a", "a.steps", 0, 5, 16)
    measured = Measured(20.0, 0, [_loop(2, 15.0, 13.0, samples=4, batch=4)])
    assert full_seconds(measured, [plan], SCALE) == pytest.approx(5 * 62 * 2 * 4 + 5)
    steps = Planned("a", "a.steps", 100, 0, 16)
    assert full_seconds(measured, [steps], SCALE) == pytest.approx(100 * 8 + 5)


def test_groups_of_images():
    """A group of four images in 2 s: 250 of them."""
    assert full_seconds(Measured(3.0, 0, [_loop(1, 2.0, 2.0, images=4)]), [], SCALE) == pytest.approx(1 + 250 * 2.0)
    assert SCALE.items({"items": 2, "images": 6}) == pytest.approx(1100 / 3)


def test_what_does_not_grow_with_the_images():
    """Of at most 8 pictures 6 were drawn, in a second each: two more of them in the full run."""
    measured = Measured(7.0, 0, [_loop(6, 6.0, 1.0, most=8)])
    assert full_seconds(measured, [], SCALE) == pytest.approx(1 + 8)
    assert full_bytes({"data/a/gallery": 60}, measured, [], SCALE) == pytest.approx(80)


def test_seconds_of_a_walk():
    measured = Measured(9.0, 0, [_loop(6, 7.0, 2.0)])
    assert full_seconds(measured, [], SCALE) == pytest.approx(1100 * 1.0 + 2.0)
    assert full_seconds(Measured(9.0), [], SCALE) == 9.0


def test_rounds_that_were_left_out():
    """Of six rounds two ran: their trainings and walks count three times, what is beside them once."""
    plan = Planned("a", "a.steps", 100, 0, 4, rounds=3.0)
    loops = [_loop(2, 3.0, 1.0, samples=4, batch=4), _loop(6, 7.0, 2.0)] * 2
    assert full_seconds(Measured(25.0, 0, loops), [plan], SCALE) == pytest.approx(5 + 3 * 2 * (100 * 2.0 + 1100 * 1.0))
    kept = full_bytes({"data/a": 60, "models/b": 7}, Measured(25.0, 0, loops), [plan], SCALE)
    assert kept == pytest.approx(3 * 60 * 1100 / 6 + 7)


def test_data_grow_and_networks_do_not():
    assert full_bytes({"data/a": 60, "models/b": 7}, Measured(1.0), [], SCALE) == pytest.approx(60 * 1100 / 6 + 7)


def test_published_counts():
    assert published(DatasetSettings(kind="voc", root="x")) == Counts(10_582, 1_449, 2.4)
    assert published(DatasetSettings(kind="shapes")) == Counts(240, 60)
    assert published(DatasetSettings(kind="folder", root="x", split=0.2)) is None
