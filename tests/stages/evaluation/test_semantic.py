import numpy as np
import pytest
from PIL import Image

from stages.evaluation.semantic import class_iou, confusion, covers, mean_iou, read_semantic
from stages.runtime.errors import UserError


def test_by_hand():
    truth = np.array([[0, 0, 3, 3], [0, 0, 3, 3]])
    predicted = np.array([[0, 3, 3, 3], [0, 0, 0, -1]])
    counts = confusion(truth, predicted, [0, 3])
    assert counts.tolist() == [[3, 1, 0], [1, 2, 1]]
    # The undecided pixel is missed for class 3 and no false alarm for background.
    np.testing.assert_allclose(class_iou(counts), [3 / 5, 2 / 5])
    assert mean_iou(counts) == pytest.approx(0.5)


def test_class_without_truth_is_left_out():
    counts = confusion(np.array([[0, 0]]), np.array([[0, 7]]), [0, 7])
    assert np.isnan(class_iou(counts)[1])
    assert mean_iou(counts) == pytest.approx(0.5)
    assert np.isnan(mean_iou(np.zeros((2, 2))))


def test_ignored_pixels_and_unknown_labels():
    truth, predicted = np.array([[1, 1, 9, 0]]), np.array([[1, 0, 9, 300]])
    counts = confusion(truth, predicted, [0, 1], ignored=np.array([[False, True, False, False]]))
    assert counts.tolist() == [[2, 0, 0], [0, 1, 0]]


def test_agrees_with_torchmetrics():
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 5, (2, 30, 40))
    theirs = functional.multiclass_jaccard_index(torch.tensor(predicted), torch.tensor(truth), 5)
    assert mean_iou(confusion(truth, predicted, range(5))) == pytest.approx(float(theirs), abs=1e-6)


def test_read(tmp_path):
    Image.fromarray(np.array([[0, 5], [255, 1], [2, 2]], np.uint8)).save(tmp_path / "000000000004.png")
    assert covers(tmp_path, [{"id": 4}])
    assert not covers(tmp_path, [{"id": 5}])
    assert not covers(tmp_path, [])
    assert read_semantic(tmp_path / "000000000004.png", 3, 2).tolist() == [[0, 5], [-1, 1], [2, 2]]
    numbered = read_semantic(tmp_path / "000000000004.png", 3, 2, {5: 1, 2: 2, 7: 3})
    assert numbered.tolist() == [[0, 1], [-1, 0], [2, 2]]
    assert read_semantic(tmp_path / "000000000004.png", 3, 2, {255: 1})[1, 0] == 1
    with pytest.raises(UserError, match=r"000000000004.png: a single-channel PNG of 3 x 2 pixels"):
        read_semantic(tmp_path / "000000000004.png", 2, 3)
    with pytest.raises(UserError, match=r"no such file"):
        read_semantic(tmp_path / "000000000005.png", 2, 3)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken.png: cannot be read as a PNG"):
        read_semantic(tmp_path / "broken.png", 2, 3)


def test_read_more_classes_than_eight_bits_hold(tmp_path):
    """With as many categories as LVIS has, 255 is one of them and the pictures have 16 bits."""
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 255], [256, 1203]], np.uint16))
    places = {number: number for number in range(1, 1204)}
    assert read_semantic(tmp_path / "a.png", 2, 2, places).tolist() == [[0, 255], [256, 1203]]
