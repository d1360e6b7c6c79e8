"""COCO results of other programs: what is right is kept, what is wrong is named."""

import json

import numpy as np
import pytest

from stages.labels import rle
from stages.proposals import from_file
from stages.proposals.segments import read_proposals
from stages.runtime.errors import UserError

IMAGE = {"id": 3, "width": 8, "height": 6, "file_name": "3.png"}


def square(x, y, side=3, size=(6, 8)):
    mask = np.zeros(size, bool)
    mask[y:y + side, x:x + side] = True
    return rle.encode(mask)


def entry(mask, score, image_id=3, **more):
    return {"image_id": image_id, "segmentation": mask, "score": score, "category_id": 1, **more}


def read(path, *ids, limit=1000):
    places, other = from_file.find_entries(from_file.files(path), ids or (3,))
    return {number: from_file.read_image({**IMAGE, "id": number}, found, limit) for number, found in places.items()}, \
        other


@pytest.fixture
def results(tmp_path):
    def write(content, name="results.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path
    return write


def test_best_first_and_other_images(results):
    path = results([entry(square(0, 0), 0.1), entry(square(1, 1), 0.7), entry(square(0, 2), 0.4, 5),
                    entry(square(4, 2), 0.9, 99), entry(square(2, 2), 0.3)])
    found, other = read(path, 3, 5, 7)
    assert other == 1
    assert set(found) == {3, 5}
    proposals, counts = found[3]
    assert proposals.scores.tolist() == pytest.approx([0.7, 0.3, 0.1])
    assert [proposals.rle(i) for i in range(3)] == [square(1, 1), square(2, 2), square(0, 0)]
    assert not counts


def test_more_than_the_limit(results):
    masks = [square(x, y) for x in range(5) for y in range(3)]
    path = results([entry(mask, 0.01 * index) for index, mask in enumerate(masks)])
    proposals, counts = read(path, limit=4)[0][3]
    assert proposals.scores.tolist() == pytest.approx([0.14, 0.13, 0.12, 0.11])
    assert counts == {"left_out": 11}
    assert read(path, limit=15)[0][3][1] == {}


def test_duplicates_and_empty_masks(results):
    empty = rle.encode(np.zeros((6, 8), bool))
    path = results([entry(square(0, 0), 0.2), entry(square(0, 0), 0.6), entry(empty, 0.9), entry(square(1, 0), 0.2)])
    proposals, counts = read(path)[0][3]
    assert proposals.scores.tolist() == pytest.approx([0.6, 0.2])
    assert counts == {"duplicate": 1, "empty": 1}


def test_all_forms_of_masks(results):
    mask = square(1, 1)
    runs = {"size": [6, 8], "counts": rle.unpack_counts(mask["counts"])}
    polygon = [[4, 1, 7, 1, 7, 4, 4, 4]]
    path = results([entry(mask, 0.3), entry(runs, 0.2), entry(polygon, 0.1)])
    proposals, counts = read(path)[0][3]
    assert counts == {"duplicate": 1}
    assert proposals.rle(1) == square(4, 1)


def test_a_folder_of_files(results, tmp_path):
    results([entry(square(0, 0), 0.1)], "a.json")
    results([entry(square(1, 0), 0.3), entry(square(1, 1), 0.2, 4)], "b.json")
    found, _ = read(tmp_path, 3, 4)
    assert found[3][0].scores.tolist() == pytest.approx([0.3, 0.1])
    assert len(found[4][0]) == 1


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("text", ["[]", " [ ] \n", '[{"a": [1, "]}"]},\r\n {"b": "\u00e9\u4e2d"} , {}]',
                                  '\ufeff[{"a": 1}]'])
def test_lists_in_pieces(results, monkeypatch, text, chunk):
    monkeypatch.setattr(from_file, "_CHUNK", chunk)
    path = results(text)
    data = path.read_bytes()
    found = list(from_file.entries(path))
    expected = json.loads(text.lstrip("\ufeff"))
    assert [json.loads(data[start:end]) for start, end, _ in found] == expected


@pytest.mark.parametrize(("text", "message"), [
    ("", "begins with ''"), ('{"annotations": []}', "take its list of annotations"), ("[", "not valid JSON"),
    ('[{"a": 1}', r"byte 9: ',' or '\]' was expected"), ('[{"a": 1},]', "not valid JSON"),
    ('[{"a": 1} {"b": 2}]', "byte 10"), ('[{"a": }]', "byte 7"), ("[] []", "something follows the list")])
def test_broken_json(results, text, message):
    with pytest.raises(UserError, match=message):
        list(from_file.entries(results(text)))


@pytest.mark.parametrize(("change", "message"), [
    ({"image_id": "3"}, "image_id: a whole number was expected, found '3'"), ({"image_id": True}, "found True"),
    ({"image_id": 1 << 70}, "image_id"), ({"score": None}, "score: a finite number was expected, found None"),
    ({"score": "high"}, "found 'high'")])
def test_entries_that_are_no_results(results, change, message):
    path = results([entry(square(0, 0), 0.1), {**entry(square(0, 0), 0.1), **change}])
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert "results.json, byte" in str(error.value)


def test_entries_of_another_kind(results):
    with pytest.raises(UserError, match="2 entries.*\n.*an object was expected, found 5\n.*there is no segmentation"):
        read(results([5, {"image_id": 3, "score": 1}]))


@pytest.mark.parametrize(("mask", "message"), [
    (square(0, 0, size=(8, 6)), r"RLE size \[8, 6\] is not the image's"),
    ({"size": [6, 8], "counts": "0 1"}, "the character ' '"),
    ({"size": [6, 8], "counts": [10, 3]}, "cover 13 pixels"),
    ({"size": [6, 8]}, "neither a string nor a list"), (None, "neither polygons nor an RLE")])
def test_masks_that_do_not_fit(results, mask, message):
    path = results([entry(square(0, 0), 0.4), entry(mask, 0.2)])
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert "results.json: image 3, the proposal at byte" in str(error.value)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        from_file.files(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"no \.json file"):
        from_file.files(tmp_path)


@pytest.mark.parametrize(("content", "message"), [
    ("[" * 100_000, "byte 1: lists or objects are nested too deeply"),
    ('[{"image_id": ' + "9" * 5000 + "}]", "byte 1: Exceeds the limit"),
    ('[{"image_id": 3, "image_id": 4, "score": 1, "segmentation": []}]', "the key 'image_id' appears twice"),
    ('[{"image_id": 3, "score": NaN, "segmentation": []}]', "NaN is no number that JSON has"),
    ('[{"image_id": 3, "score": 1' + "0" * 400 + ', "segmentation": []}]', "score: a finite number was expected"),
])
def test_what_no_json_holds(results, content, message):
    with pytest.raises(UserError, match=message):
        read(results(content))


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "results.json"
    content = json.dumps([entry(square(0, 0), 0.5, note="x")]).encode()
    path.write_bytes(content.replace(b'"x"', '"é"'.encode()))
    assert len(read(path)[0][3][0]) == 1
    path.write_bytes(content.replace(b'"x"', b'"\xff"'))
    place = content.index(b'"x"') + 1
    with pytest.raises(UserError, match=rf"results.json: not valid JSON .byte {place}: not UTF-8"):
        read(path)


@pytest.mark.parametrize(("name", "change"), [
    ("counts", lambda values: values + 100), ("counts", lambda values: values[::-1]),
    ("counts", lambda values: values.astype(float)), ("counts", lambda values: values[:-1]),
    ("ends", lambda values: values[::-1]), ("ends", lambda values: values.astype(float)),
    ("ends", lambda values: values + 1), ("ends", lambda values: np.array(3)), ("scores",
                                                                                lambda values: values * np.nan),
    ("scores", lambda values: values.astype(str)), ("scores", lambda values: values[None]),
    ("size", lambda values: values[:1]), ("size", lambda values: np.array(["a", "b"])),
])
def test_stored_proposals_that_were_damaged(tmp_path, results, name, change):
    found, _ = read(results([entry(square(0, 0), 0.5), entry(square(2, 1), 0.25)]))
    arrays = found[3][0].arrays()
    np.savez(tmp_path / "000000000003.npz", **arrays)
    assert read_proposals(tmp_path, IMAGE).areas.tolist() == [9, 9]
    np.savez(tmp_path / "000000000003.npz", **{**arrays, name: change(arrays[name])})
    with pytest.raises(UserError, match=r"000000000003\.npz: .*delete its folder and run `dvc repro` again"):
        read_proposals(tmp_path, IMAGE)
