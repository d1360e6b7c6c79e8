"""The benchmarks' own arithmetic; the figures themselves come from ``make bench``."""

import json
import sys

import numpy as np
import pytest

from benchmarks import (
    grabcut,
    grouping,
    instance_crf,
    instance_map,
    irnet_image,
    lcfcn,
    mean_field,
    point_retrieval,
    random_walk,
    refined_labels,
    run,
)
from benchmarks.measure import Measurement, measure, row
from stages.propagation.random_walk import random_walk as walk


def grow(megabytes):
    """What the measuring test measures: an array of the given size, all of it touched."""
    return lambda: np.array([np.ones(megabytes * 2**17).sum() / 2**17])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is reset by Linux only")
def test_peak_is_the_growth_of_the_call_alone():
    small = measure("tests.benchmarks.test_benchmarks:grow", megabytes=1)
    large = measure("tests.benchmarks.test_benchmarks:grow", repeats=2, megabytes=64)
    assert small.result == 1
    assert large.result == 64
    assert small.peak_mb < 10
    assert 60 < large.peak_mb < 80
    assert large.seconds > 0


def test_row_with_and_without_reference():
    ours = Measurement(0.5, 3.0, np.array([[1.0, 2.0]], np.float32))
    reference = Measurement(2.0, 5.0, np.array([[1.0, 4.0]]))
    assert row(2, ours, None) == {"size": 2, "seconds": 0.5, "peak_mb": 3.0}
    figures = row(2, ours, reference)
    assert figures["ratio"] == 4
    assert figures["reference_seconds"] == 2
    assert figures["rel_error"] == pytest.approx(2 / np.sqrt(17))


def test_references_of_the_walk_agree():
    scores, boundary = random_walk.inputs(9, 11)
    squared = random_walk.dense_squaring(9, 11)()
    settings = {key: random_walk.SETTINGS[key] for key in ("radius", "beta", "steps")}
    for other in (random_walk.dense_products(9, 11)(), random_walk.csr_products(9, 11)()):
        assert np.allclose(other, squared, rtol=1e-10)
    assert np.allclose(walk(scores, boundary, **settings), squared, rtol=1e-5, atol=1e-7)


def test_references_of_the_mean_field_agree():
    exact = mean_field.all_pairs(2, 12)()
    assert np.allclose(mean_field.whole_window(2, 12)(), exact, atol=1e-5)
    assert np.abs(mean_field.ours(2, 12)() - exact).mean() < 0.02
    assert np.abs(mean_field.ours(2, 12)() - mean_field.pydensecrf(2, 12)()).mean() < 0.01


def test_references_of_the_instance_crf_agree():
    exact = instance_crf.all_pairs(24)()
    assert np.abs(instance_crf.ours(24)() - exact).mean() < 0.005
    assert np.abs(instance_crf.ours(24)() - instance_crf.pydensecrf(24)()).mean() < 1e-4
    found, expected = instance_crf.training(24)(), instance_crf.all_pairs_training(24)()
    assert np.linalg.norm(found - expected) < 0.3 * np.linalg.norm(expected)


def test_references_of_the_point_retrieval_agree():
    for ours, reference in ((point_retrieval.products, point_retrieval.power),
                            (point_retrieval.hops_only, point_retrieval.power_only),
                            (point_retrieval.solve, point_retrieval.inverse)):
        expected = reference()()
        assert np.linalg.norm(ours()() - expected) / np.linalg.norm(expected) < 1e-5


def test_grabcut_bounds_its_view():
    shrunk, whole = (grabcut.cut(400, longest)() for longest in (192, 640))
    assert shrunk.shape == whole.shape == (480, 640)
    assert 0.9 < (shrunk & whole).sum() / (shrunk | whole).sum() < 1
    assert 0.3 * 400 ** 2 < whole.sum() < 0.7 * 400 ** 2  # the ellipse, not the box
    assert (grabcut.cut(40, 192)() == grabcut.cut(40, 640)()).all()


def test_references_of_wise_agree():
    size = {"height": 40, "width": 52, "classes": 5, "points": 8}
    for name in ("trained", "early"):
        expected = lcfcn.loops(name, **size)()
        assert np.linalg.norm(lcfcn.ours(name, **size)() - expected) / np.linalg.norm(expected) < 1e-5
    size = {"height": 20, "width": 31, "dimensions": 8, "objects": 5}
    assert (grouping.ours(**size)() == grouping.loops(**size)()).all()
    assert grouping.with_background(**size)().max() == 5


def test_references_of_the_instance_map_agree():
    for iterations in (3, 60):
        expected = instance_map.in_numpy(iterations, height=30, width=41)()
        assert (instance_map.ours(iterations, height=30, width=41)() == expected).all()
        assert expected.max() > 2


def test_the_cpus_share_of_an_image():
    size = {"height": 60, "width": 80}
    ours, reference = (irnet_image.areas(engine, **size)() for engine in ("lattice", "pydensecrf"))
    assert (ours != reference).mean() < 0.02
    assert len(np.unique(ours)) > 2
    assert irnet_image.whole(**size)().sum() > 0


@pytest.mark.parametrize("instances", [1, 5, 20])
def test_references_of_the_refined_labels_agree(instances):
    ours, reference = (make(2, 130, instances)() for make in (refined_labels.vectorised, refined_labels.plain))
    assert np.allclose(ours, reference, atol=1e-6)
    guided = len(np.unique(ours[:, -1])) - 1
    assert guided >= (1 if instances == 1 else instances), "of two crops, and some find no centre"


def test_only_a_whole_run_writes_the_file(monkeypatch, tmp_path, capsys):
    class Module:
        ABOUT_SECONDS, SETTINGS, SEED = 1, {"steps": 2}, 0

        @staticmethod
        def rows():
            return {"4x4": {"size": 16, "seconds": 0.25}}

    monkeypatch.setattr(run, "modules", lambda: {"one": Module, "two": Module})
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(sys, "argv", ["run", "one"])
    run.main()
    assert not (tmp_path / "results.json").exists()
    monkeypatch.setattr(sys, "argv", ["run"])
    run.main()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["two_4x4"] == {"size": 16, "seconds": 0.25}
    assert {"settings", "seed", "versions"} <= results["run"].keys()
    output = capsys.readouterr().out
    assert "about 1 min" in output
    assert "one_4x4" in output


def test_unknown_name(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run", "nothing"])
    with pytest.raises(SystemExit):
        run.main()
    assert ("there are dense_crf, grabcut, grouping, instance_crf, instance_map, irnet_image, lcfcn, mean_field, "
            "point_retrieval, proposals, random_walk, refined_labels"
            in capsys.readouterr().err)
