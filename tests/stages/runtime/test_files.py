import numpy as np
import pytest

from stages.runtime import layout
from stages.runtime.errors import UserError, summarise
from stages.runtime.files import atomic_path, read_json, read_npz, write_json, write_npz, write_text


def test_round_trips(tmp_path):
    write_json(tmp_path / "deep" / "a.json", {"b": [1, 2.5, None, "é"]})
    assert read_json(tmp_path / "deep" / "a.json") == {"b": [1, 2.5, None, "é"]}
    arrays = {"half": np.float16([[1, 2]]), "bytes": np.uint8([3]), "empty": np.zeros((0, 4))}
    write_npz(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        write_npz(tmp_path / name, values=np.arange(50, dtype=np.float32))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def interrupted():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_a_half_written_folder_goes_too(tmp_path):
    def interrupted():
        with atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / "part").write_text("half")
            raise ValueError

    with pytest.raises(ValueError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_temporary_names_keep_the_suffix_and_are_hidden(tmp_path):
    with atomic_path(tmp_path / "image.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.name.startswith(".")
        assert temporary.parent == tmp_path
        temporary.write_text("x")
    assert [item.name for item in tmp_path.iterdir()] == ["image.png"]


def test_nothing_written_is_an_error_and_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [-float("inf")]}])
def test_json_without_nan(tmp_path, value):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("content", "expected"), [
    (b'{"a": 1,\n "b" 2}', "a.json: not valid JSON (line 2, column 6: Expecting ':' delimiter)"),
    (b"", "a.json: not valid JSON (line 1, column 1"),
    (b'{"a": "\xff"}', "a.json: not a UTF-8 text file (byte 7)"),
    (b'{"id": 1, "b": [2], "id": 3}', "a.json: not valid JSON (the key 'id' appears twice in one object: 'id', 'b'"),
    (b'[{"a": NaN}]', "a.json: not valid JSON (NaN is no number that JSON has)"),
    (b'[-Infinity]', "a.json: not valid JSON (-Infinity is no number"),
    (b'{"id": ' + b"9" * 5000 + b"}", "for integer string conversion: value has 5000 digits)"),
    (b"[" * 100_000, "a.json: not valid JSON of this project: lists or objects are nested too deeply"),
    (b'{"a":' * 100_000, "a.json: not valid JSON of this project: lists or objects are nested too deeply"),
])
def test_broken_json(tmp_path, content, expected):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(tmp_path / "a.json")
    assert expected in str(caught.value)


def test_missing_json_and_folders(tmp_path):
    with pytest.raises(UserError, match="absent.json: no such file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(UserError, match="is a folder"):
        read_json(tmp_path)
    write_text(tmp_path / "file", "")
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path / "file" / "below.json")


def _damaged(whole: bytes) -> dict[str, bytes]:
    middle = len(whole) // 2
    return {"empty": b"", "text": b"not an archive", "cut": whole[:middle],
            "flipped": whole[:middle] + bytes(byte ^ 0xFF for byte in whole[middle:middle + 64]) + whole[middle + 64:],
            "start": b"\0" * 40 + whole[40:], "end": whole[:-30] + b"\0" * 30}


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "flipped", "start", "end"])
def test_damaged_npz(tmp_path, damage):
    write_npz(tmp_path / "a.npz", values=np.random.default_rng(0).integers(0, 255, 5000, np.uint8))
    (tmp_path / "a.npz").write_bytes(_damaged((tmp_path / "a.npz").read_bytes())[damage])
    with pytest.raises(UserError, match=r"a\.npz: cannot be read as \.npz .*delete it and run `dvc repro`") as caught:
        read_npz(tmp_path / "a.npz")
    assert "pickle" not in str(caught.value)  # NumPy's advice on how to execute what is in such a file


def test_encrypted_and_oddly_packed_npz(tmp_path):
    write_npz(tmp_path / "a.npz", values=np.arange(9))
    whole = bytearray((tmp_path / "a.npz").read_bytes())
    for name, offset, value in (("encrypted", 6, 1), ("packed", 8, 97)):  # from each header's start
        content = bytearray(whole)
        local, central = whole.index(b"PK\3\4"), whole.index(b"PK\1\2")
        content[local + offset] = value
        content[central + offset + 2] = value
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}\.npz: cannot be read as \.npz"):
            read_npz(tmp_path / f"{name}.npz")


def test_names_as_long_as_the_file_system_takes(tmp_path):
    write_json(tmp_path / f"{'a' * 250}.json", 1)
    assert read_json(tmp_path / f"{'a' * 250}.json") == 1


def test_npz_of_other_kinds(tmp_path):
    np.savez(tmp_path / "objects.npz", values=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="it holds Python objects, which are not read"):
        read_npz(tmp_path / "objects.npz")
    with (tmp_path / "single.npz").open("wb") as handle:
        np.save(handle, np.arange(3))
    with pytest.raises(UserError, match="single array"):
        read_npz(tmp_path / "single.npz")
    with pytest.raises(UserError, match="the stage that writes it has not run"):
        read_npz(tmp_path / "absent.npz")


def test_long_lists_of_problems_are_cut():
    assert summarise(["a", "b"], "wrong:") == "wrong:\n  - a\n  - b"
    assert summarise([str(number) for number in range(12)], "wrong:").endswith("  - 9\n  ... and 2 more")


def test_layout():
    assert layout.image_key({"id": 42}) == "000000000042"
    paths = [layout.TRUTH["train"], layout.WEAK["val"], layout.pseudo_labels("irnet"), layout.predictions("irnet"),
             layout.method_models("irnet")]
    assert [str(path) for path in paths] == [
        "data/dataset/train_truth.json", "data/annotations/val_weak.json", "data/irnet/pseudo_labels.json",
        "data/irnet/predictions.json", "models/irnet"]
