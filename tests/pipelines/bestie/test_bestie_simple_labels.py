"""Labels without a network, on hand-drawn maps."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.bestie.labelling import simple_inference
from pipelines.bestie.settings import BestieSettings
from pipelines.bestie.simple_labels import SOURCES, discs, split_by_nearest
from stages.labels import rle
from stages.runtime.files import write_npz
from stages.segmentation.labels import write_semantic_png


def _cues(*rows: tuple[int, int, int]) -> np.ndarray:
    return np.array(rows, np.int64).reshape(-1, 3)


def test_components_are_split_by_the_nearest_cue():
    semantic = np.array([[1, 1, 1, 1, 0, 1, 1],
                         [0, 0, 0, 0, 0, 0, 0],
                         [2, 2, 0, 1, 1, -1, -1]])
    cues = _cues((0, 0, 0), (0, 0, 3), (0, 0, 5), (1, 2, 4), (1, 2, 5))
    np.testing.assert_array_equal(split_by_nearest(semantic, cues), [[1, 1, 2, 2, 0, 3, 3],
                                                                     [0, 0, 0, 0, 0, 0, 0],
                                                                     [0, 0, 0, 0, 0, 0, 0]])


def test_small_components_are_left_out():
    semantic = np.array([[1, 1, 1, 0, 1]])
    np.testing.assert_array_equal(split_by_nearest(semantic, _cues((0, 0, 0), (0, 0, 4)), 2), [[1, 1, 1, 0, 0]])


def test_discs_share_the_classes_area():
    semantic = np.zeros((40, 60), int)
    semantic[:10, :40] = 1  # 400 px for two cues
    semantic[20:30, :8] = 2
    labels = discs(semantic, _cues((0, 12, 12), (0, 12, 40), (1, 30, 30), (2, 5, 55)))
    areas = np.bincount(labels.ravel(), minlength=5)
    assert areas[1] == areas[2] == pytest.approx(200, abs=8)
    assert areas[3] == pytest.approx(80, abs=6)
    assert areas[4] == 0, "its class has no pixel"
    y, x = np.nonzero(labels == 2)
    assert (y.mean(), x.mean()) == (12, 40)
    assert ((y - 12) ** 2 + (x - 40) ** 2).max() < 200 / np.pi


def test_where_discs_overlap_the_nearest_cue_counts():
    semantic = np.ones((20, 20), int)
    labels = discs(semantic, _cues((0, 10, 5), (0, 10, 9)))
    assert (labels[:, 8:][labels[:, 8:] > 0] == 2).all() and (labels[:, :7][labels[:, :7] > 0] == 1).all()


@pytest.mark.parametrize("name", SOURCES)
def test_no_cues(name):
    np.testing.assert_array_equal(SOURCES[name](np.ones((3, 4), int), _cues(), 1), np.zeros((3, 4)))


def test_annotations_of_an_image(tmp_path):
    """Class ids, one annotation per cue that has a pixel, no network."""
    semantic = np.zeros((6, 8), np.uint8)
    semantic[1:4, 1:7] = 5
    semantic[5] = 255
    write_semantic_png(tmp_path / "000000000003.png", semantic)
    write_npz(tmp_path / "000000000003.npz", cues=np.array([[5, 2, 1], [2, 0, 0], [5, 2, 6]]))
    settings = BestieSettings(synthesis={"source": "nearest_point"}, inference={"smallest": 1})
    found = simple_inference(tmp_path, tmp_path, settings, [2, 5])({"id": 3, "height": 6, "width": 8})
    assert [(one["category_id"], one["score"]) for one in found] == [(5, 1.0), (5, 1.0)]
    left, right = (rle.decode(one["segmentation"]) for one in found)
    assert left[1:4, 1:4].all() and left.sum() == 9
    assert right[1:4, 4:7].all() and right.sum() == 9
