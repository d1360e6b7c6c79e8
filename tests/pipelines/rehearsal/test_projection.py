import pytest

from pipelines.rehearsal.projection import Counts, Scale, full_bytes, full_seconds, image_bytes, published
from pipelines.rehearsal.shortened import Planned
from pipelines.rehearsal.watch import Measured
from stages.prepare.settings import DatasetSettings

SCALE = Scale(Counts(4, 2), Counts(1000, 100, 3.0))


def _loop(items, seconds, each, **facts):
    return {"items": items, "seconds": seconds, "each": each, **facts}


def _measured(seconds, *loops):
    return Measured(seconds, loops=list(loops))


def test_items_of_the_full_run():
    assert SCALE.items({"items": 4, "part": "train"}) == 1000 and SCALE.items({"items": 2, "part": "val"}) == 100
    assert SCALE.items({"items": 2, "part": "train"}) == 500  # two have no labels
    assert SCALE.items({"items": 6, "part": ""}) == SCALE.items({"items": 6, "part": "points"}) == 1100
    assert SCALE.items({"items": 4}) == 1000
    equal = Scale(Counts(4, 4), Counts(1000, 100))  # of a real folder
    assert equal.items({"items": 4, "part": "train"}) == 1000 and equal.items({"items": 4, "part": "val"}) == 100
    assert equal.items({"items": 8, "part": ""}) == 1100
    assert SCALE.samples(4) == 1000 and SCALE.samples(3) == 750 and SCALE.samples(9) == 3000


def test_seconds_of_a_training():
    """Five passes over 1,000 images in batches of 16, a step of 4 in 2 s: 310 steps of 8 s, and 5 s beside them."""
    plan = Planned("a", "a.steps", 0, 5, 16)
    measured = Measured(20.0, 0, 0.0, [_loop(2, 15.0, 2.0, samples=4, batch=4)])
    assert full_seconds(measured, [plan], SCALE) == pytest.approx(5 * 62 * 2 * 4 + 5)
    steps = Planned("a", "a.steps", 100, 0, 16)
    assert full_seconds(measured, [steps], SCALE) == pytest.approx(100 * 8 + 5)


def test_groups_of_images():
    """A group of four images in 2 s: 250 of them."""
    loop = _loop(1, 2.0, 2.0, images=4, part="train")
    assert full_seconds(_measured(3.0, loop), [], SCALE) == pytest.approx(1 + 250 * 2.0)
    assert SCALE.items({"items": 2, "images": 6, "part": ""}) == pytest.approx(1100 / 3)


def test_workers_share_the_items():
    """Four images by one worker here, as there was one group; eight workers share the groups of the full run."""
    loop = _loop(1, 2.0, 2.0, images=4, part="train", workers=8)
    assert full_seconds(_measured(2.0, loop), [], SCALE) == pytest.approx(250 * 2.0 / 8)
    few = Scale(Counts(4, 2), Counts(8, 2))
    assert full_seconds(_measured(2.0, loop), [], few) == pytest.approx(2 * 2.0 / 2)


def test_processes_side_by_side():
    """Each has half of the images; the slower one counts, and not their sum."""
    loops = [_loop(2, 4.0, 2.0, walk="w", part="train", rank=0), _loop(2, 6.0, 3.0, walk="w", part="train", rank=1)]
    assert full_seconds(_measured(7.0, *loops), [], SCALE) == pytest.approx(1 + 500 * 3.0)


def test_train_and_val_have_their_own_pace():
    loops = [_loop(4, 8.0, 2.0, part="train"), _loop(2, 20.0, 10.0, part="val")]
    assert full_seconds(_measured(28.0, *loops), [], SCALE) == pytest.approx(1000 * 2.0 + 100 * 10.0)


def test_what_does_not_grow_with_the_images():
    """Of at most 8 pictures 6 were drawn, in a second each: two more of them in the full run."""
    measured = _measured(7.0, _loop(6, 6.0, 1.0, most=8))
    assert full_seconds(measured, [], SCALE) == pytest.approx(1 + 8)
    assert full_bytes({"data/a/gallery": 60}, measured, [], SCALE) == pytest.approx(80)


def test_seconds_of_a_walk():
    assert full_seconds(_measured(9.0, _loop(6, 7.0, 1.0)), [], SCALE) == pytest.approx(1100 * 1.0 + 2.0)
    assert full_seconds(Measured(9.0), [], SCALE) == 9.0


def test_rounds_that_were_left_out():
    """Of six rounds two ran: their trainings and walks count three times, what is beside them once."""
    plan = Planned("a", "a.steps", 100, 0, 4, rounds=3.0)
    loops = [_loop(2, 3.0, 2.0, samples=4, batch=4), _loop(6, 7.0, 1.0)] * 2
    assert full_seconds(_measured(25.0, *loops), [plan], SCALE) == pytest.approx(5 + 3 * 2 * (100 * 2.0 + 1100 * 1.0))
    kept = full_bytes({"data/a": 60, "models/b": 7}, _measured(25.0, *loops), [plan], SCALE)
    assert kept == pytest.approx(3 * 60 * 1100 / 6 + 7)


def test_data_grow_with_the_loop_that_makes_them_and_networks_do_not():
    def kept(*loops):
        return full_bytes({"data/a": 60, "models/b": 7}, _measured(1.0, *loops), [], SCALE)

    assert kept(_loop(6, 1.0, 0.1)) == pytest.approx(60 * 1100 / 6 + 7)
    assert kept(_loop(4, 1.0, 0.1, part="train")) == pytest.approx(60 * 250 + 7)
    assert kept() == kept(_loop(3, 1.0, 0.1, samples=4, batch=2)) == 67  # e.g. digests, curves
    both = [_loop(4, 1.0, 0.1, part="train"), _loop(2, 1.0, 0.1, part="val")]
    files = {"data/a/train_weak.json": 4, "data/a/pseudo_labels_val.json": 2, "data/b": 6}
    assert full_bytes(files, _measured(1.0, *both), [], SCALE) == pytest.approx(1000 + 100 + 1100)


def test_bytes_of_published_images():
    assert image_bytes("coco", SCALE) == pytest.approx(1100 * 163e3) and image_bytes("folder", SCALE) is None


def test_published_counts():
    assert published(DatasetSettings(kind="voc", root="x")) == Counts(10_582, 1_449, 2.4)
    assert published(DatasetSettings(kind="shapes")) == Counts(240, 60)
    assert published(DatasetSettings(kind="folder", root="x", split=0.2)) is None
    assert published(DatasetSettings(kind="voc", root="x", split=0.2)) is None
    file = "annotations/instances_train2014.json"
    more = DatasetSettings(kind="coco", root="x", train=file, train_more=[{"file": "35k.json", "images": "val2014"}])
    assert published(more) == Counts(118_287, 5_000, 7.2) and published(DatasetSettings(kind="coco", root="x",
                                                                                       train=file)) is None
