"""Semantic maps: what is written is read, and what cannot be right is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stages.evaluation.semantic import read_semantic
from stages.runtime.errors import UserError
from stages.segmentation.labels import IGNORE, category_map, index_table, read_indices, write_semantic_png


@pytest.mark.parametrize(("ids", "kind", "undecided"), [
    ([1, 2, 3], np.uint8, 255), ([7, 3, 254], np.uint8, 255), ([], np.uint8, 255),
    ([3, 256, 1203], np.uint16, 255), ([3, 255, 1203], np.uint16, 65535), ([255], np.uint16, 65535),
])
def test_what_is_written_is_read(tmp_path, ids, kind, undecided):
    indices = np.random.default_rng(0).integers(-1, len(ids) + 1, (9, 14)).astype(np.int16)
    indices[0, :len(ids) + 2] = [IGNORE, *range(len(ids) + 1)]
    values = category_map(indices, ids)
    assert values.dtype == kind
    assert values[0, :len(ids) + 2].tolist() == [undecided, 0, *ids]
    write_semantic_png(tmp_path / "map.png", values)
    assert np.array_equal(np.array(Image.open(tmp_path / "map.png")), values)
    found = read_indices(tmp_path / "map.png", (9, 14), index_table(ids))
    assert found.dtype == np.int16
    assert np.array_equal(found, indices)
    if undecided == 255:  # what `score` reads
        measured = read_semantic(tmp_path / "map.png", 9, 14, {number: place for place, number in enumerate(ids, 1)})
        assert np.array_equal(measured, indices)


def test_the_same_map_gives_the_same_bytes(tmp_path):
    values = np.random.default_rng(0).integers(0, 5, (30, 40), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        write_semantic_png(tmp_path / name, values)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_palette_pictures_hold_their_indices(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8), mode="P")
    picture.putpalette([value for number in range(256) for value in (255 - number, 7, number)])
    picture.save(tmp_path / "map.png")
    assert read_indices(tmp_path / "map.png", (2, 2), index_table([1, 2])).tolist() == [[0, 1], [2, IGNORE]]


def test_a_map_may_decide_nothing(tmp_path):
    write_semantic_png(tmp_path / "map.png", np.full((3, 4), 255, np.uint8))
    assert (read_indices(tmp_path / "map.png", (3, 4), index_table([1])) == IGNORE).all()


def test_wrong_maps_are_refused(tmp_path):
    table, path = index_table([1, 2]), tmp_path / "map.png"
    with pytest.raises(UserError, match="map.png: no such label map"):
        read_indices(path, (3, 4), table)
    path.write_bytes(b"no picture")
    with pytest.raises(UserError, match="map.png: cannot be read as a PNG"):
        read_indices(path, (3, 4), table)
    write_semantic_png(path, np.array([[0, 1, 2, 255], [9, 0, 0, 7], [0, 0, 0, 7]], np.uint8))
    with pytest.raises(UserError, match=r"map.png: the values \[7, 9\] are no category ids"):
        read_indices(path, (3, 4), table)
    with pytest.raises(UserError, match=r"map.png: .*5 x 3 pixels.*found 4 x 3 pixels"):
        read_indices(path, (3, 5), table)
    Image.new("RGB", (4, 3)).save(path)
    with pytest.raises(UserError, match=r"one channel was expected.*mode RGB"):
        read_indices(path, (3, 4), table)
    half = (tmp_path / "whole.png")
    write_semantic_png(half, np.random.default_rng(0).integers(0, 3, (90, 90), dtype=np.uint8))
    path.write_bytes(half.read_bytes()[:300])
    with pytest.raises(UserError, match="map.png: cannot be read as a PNG"):
        read_indices(path, (90, 90), table)


@pytest.mark.parametrize("ids", [[0, 1], [1, 1], [70000], [-3], [65535]])
def test_ids_that_a_map_cannot_hold(ids):
    with pytest.raises(UserError, match="category ids must differ and lie in 1..65534"):
        index_table(ids)


@pytest.mark.parametrize("values", [np.zeros((3, 4), np.int64), np.zeros((3, 4, 1), np.uint8)])
def test_only_maps_of_ids_are_written(tmp_path, values):
    with pytest.raises(ValueError, match="a semantic map is"):
        write_semantic_png(tmp_path / "map.png", values)
