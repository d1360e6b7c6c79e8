"""The stage as a whole, its settings, and the figures of proposals."""

import json
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from stages.labels import rle
from stages.proposals import measure, propose
from stages.proposals.segments import from_rles, read_proposals
from stages.proposals.settings import ProposalSettings
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import write_npz
from stages.runtime.settings import load_settings

SIZE = (30, 40)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Two training images and one of val, each with a square of its own; ``run(settings)`` runs the stage."""
    monkeypatch.chdir(tmp_path)
    images = []
    for number in (1, 2, 3):
        pixels = np.full((*SIZE, 3), 230, np.uint8)
        pixels[5:5 + 4 * number, 8:20] = (40 * number, 30, 90)
        layout.IMAGES.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(layout.IMAGES / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": SIZE[1], "height": SIZE[0]})
    layout.ANNOTATIONS.mkdir(parents=True)
    for part, own in (("train", images[:2]), ("val", images[2:])):
        layout.WEAK[part].write_text(json.dumps({"images": own, "annotations": [], "categories": []}))

    def run(**settings):
        params = tmp_path / "params.yaml"
        params.write_text(yaml.safe_dump({"proposals": settings, "runtime": {"workers": 1}}))
        propose.main(params)
        return json.loads(propose.PROVIDER.read_text()), images
    return run


def square(number):
    mask = np.zeros(SIZE, bool)
    mask[5:5 + 4 * number, 8:20] = True
    return mask


def test_hierarchy_of_train_and_val(workspace):
    record, images = workspace(limit=50)
    assert record.pop("proposals") >= 3
    assert record == {"provider": "hierarchy", "trained_on_masks": False, "tuned_on_masks": True, "images": 3,
                      "without_proposals": 0, "duplicate": 0, "empty": 0, "left_out": 0, "other_images": 0}
    first = {}
    for image in images:
        found = read_proposals(propose.PROPOSALS, image)
        assert found.jaccards(square(image["id"])).max() == 1
        first[image["id"]] = (propose.PROPOSALS / f"{layout.image_key(image)}.npz").read_bytes()
    workspace(limit=50)
    for image in images:
        assert (propose.PROPOSALS / f"{layout.image_key(image)}.npz").read_bytes() == first[image["id"]]
    assert len(list(propose.PROPOSALS.iterdir())) == 4


def test_proposals_of_a_file(workspace, tmp_path):
    results = [{"image_id": number, "segmentation": rle.encode(square(number)), "score": 0.5}
               for number in (1, 1, 3, 9)]
    (tmp_path / "results.json").write_text(json.dumps(results))
    file = {"name": "SharpMask", "trained_on_masks": True}
    with pytest.raises(UserError, match=r"1 of 3 images have no proposals.*\n.*image 2 \(2\.png\)"):
        workspace(provider="file", source="results.json", file=file)
    assert not propose.PROPOSALS.exists()
    record, images = workspace(provider="file", source="results.json", file={**file, "missing": "none"})
    assert record == {"provider": "SharpMask", "trained_on_masks": True, "tuned_on_masks": True, "images": 3,
                      "proposals": 2,
                      "without_proposals": 1, "duplicate": 1, "empty": 0, "left_out": 0, "other_images": 1}
    assert [len(read_proposals(propose.PROPOSALS, image)) for image in images] == [1, 0, 1]


def test_maps(workspace, tmp_path):
    for number in (1, 2, 3):
        features = np.random.default_rng(number).random((3, 8, 10))
        write_npz(tmp_path / "maps" / f"{number:012d}.npz", features=features, boundary=np.zeros((8, 10), np.float16))
        write_npz(tmp_path / "other" / f"{number:012d}.npz", features=features[0],
                  boundary=np.full((8, 10), np.nan, np.float16))
    plain = workspace()[0]
    record = workspace(maps={"features": "maps", "boundary": "maps"})[0]
    assert (record["without_features"], record["without_boundary"]) == (0, 0)
    assert record["proposals"] >= 3 and "without_boundary" not in plain
    with pytest.raises(UserError, match=r"features has shape \(8, 10\), finite numbers of shape \(C, h, w\) were"):
        workspace(maps={"features": "other"})
    with pytest.raises(UserError, match=r"boundary has shape \(8, 10\), finite numbers of shape \(h, w\) were"):
        workspace(maps={"boundary": "other"})
    (tmp_path / "fields").mkdir()
    write_npz(tmp_path / "fields" / "000000000002.npz", displacement=np.zeros((2, 8, 10)))
    with pytest.raises(UserError, match=r"no array 'boundary' \(it holds displacement\); correct proposals.maps.bound"):
        workspace(maps={"boundary": "fields"})


def test_images_without_a_map_are_done_without_its_tree(workspace, tmp_path):
    """As val is by IRNet's boundaries, which are those of the training images."""
    for number in (1, 2, 3):
        noise = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(noise).save(layout.IMAGES / f"{number}.png")
    workspace()
    plain = [(propose.PROPOSALS / f"{number:012d}.npz").read_bytes() for number in (1, 2, 3)]
    boundary = np.random.default_rng(0).random((8, 10))
    write_npz(tmp_path / "fields" / "000000000002.npz", boundary=boundary)
    assert workspace(maps={"boundary": "fields"})[0]["without_boundary"] == 2
    found = [(propose.PROPOSALS / f"{number:012d}.npz").read_bytes() for number in (1, 2, 3)]
    assert [one == other for one, other in zip(plain, found, strict=True)] == [True, False, True]
    (tmp_path / "fields" / "000000000002.npz").rename(tmp_path / "fields" / "2.npz")
    with pytest.raises(UserError, match="proposals.maps.boundary: fields holds no map of any image; .* 000000000001"):
        workspace(maps={"boundary": "fields"})


@pytest.mark.parametrize(("settings", "message"), [
    ({"provider": "file"}, "a section file with name and trained_on_masks is needed"),
    ({"provider": "file", "source": "a", "file": {"name": "MCG"}}, r"file\.trained_on_masks: missing; it is required"),
    ({"provider": "file", "source": "a", "file": {"trained_on_masks": True}}, r"file\.name: missing"),
    ({"provider": "file", "file": {"name": "MCG", "trained_on_masks": True}}, "data/dataset/images does not go with"),
    ({"source": "a.json"}, "source: a.json does not go with provider hierarchy; write data/dataset/images"),
    ({"provider": "file", "source": "a", "file": {"name": "MCG", "trained_on_masks": True}, "maps": {"features": "b"}},
     "maps are for provider hierarchy; write data/dataset/images"),
    ({"maps": {"boundaries": "b"}}, r"maps.boundaries: unknown key; did you mean 'boundary'"),
    ({"provider": "sam"}, "provider: input should be 'hierarchy' or 'file'"), ({"limit": 0}, "limit")])
def test_settings_that_cannot_work(tmp_path, settings, message):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"proposals": settings}))
    with pytest.raises(UserError, match=message):
        load_settings(path, proposals=ProposalSettings)


# Figures


def test_best_overlaps_by_hand():
    truth = [rle.encode(square(2)), rle.encode(square(4))]
    masks = [square(1), square(4), square(2)]
    proposals = from_rles(SIZE, [rle.encode(mask) for mask in masks], [0.9, 0.8, 0.7])
    found = measure.best_overlaps(proposals, truth, (1, 2, 100))
    assert found == pytest.approx(np.array([[0.5, 0.5, 1], [0.25, 1, 1]]))
    figures = measure.summary(found, (1, 2, 100))
    assert figures == pytest.approx({
        "objects": 2, "abo_1": 37.5, "recall50_1": 50, "recall70_1": 0, "abo_2": 75, "recall50_2": 100,
        "recall70_2": 50, "abo_100": 100, "recall50_100": 100, "recall70_100": 100})
    assert measure.best_overlaps(proposals, []).shape == (0, 3)
    assert measure.best_overlaps(from_rles(SIZE, [], []), truth).tolist() == [[0, 0, 0]] * 2
    assert measure.summary(np.zeros((0, 3))) == {"objects": 0}


def test_which_objects_count():
    image = {"height": 40, "width": 50}
    annotations = [{"segmentation": [[0, 0, side, 0, side, 32, 0, 32]], "iscrowd": crowd}
                   for side, crowd in ((31, 0), (32, 0), (40, 1), (40, 0))]
    assert [rle.area(mask) for mask in measure.true_masks(image, annotations)] == [32 * 32, 32 * 40]


def test_command(tmp_path, monkeypatch, capsys):
    """All three rows on one drawn photograph, and the same figures from stored proposals."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(200, 5, (80, 100, 3))
    pixels[20:60, 30:80] = rng.normal((60, 90, 150), 5, (40, 50, 3))
    (tmp_path / "images").mkdir()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(tmp_path / "images" / "1.png")
    truth = {"images": [{"id": 1, "file_name": "1.png", "width": 100, "height": 80}],
             "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [30, 20, 50, 40],
                              "area": 2000, "segmentation": [[30, 20, 80, 20, 80, 60, 30, 60]]}],
             "categories": [{"id": 1, "name": "box"}]}
    (tmp_path / "instances_val.json").write_text(json.dumps(truth))
    monkeypatch.setattr(sys, "argv", ["measure", str(tmp_path), "--output", str(tmp_path / "out.json")])
    measure.command()
    rows = json.loads((tmp_path / "out.json").read_text())
    assert list(rows) == ["hierarchy", "felzenszwalb", "selective_search_style"]
    assert all(row["abo_1000"] > 85 and row["objects"] == 1 for row in rows.values())
    assert "selective_search_style" in capsys.readouterr().out
    pixels = np.asarray(Image.open(tmp_path / "images" / "1.png"))
    write_npz(tmp_path / "stored" / "000000000001.npz", **measure.PROVIDERS["hierarchy"](pixels).arrays())
    stored = measure.measure_folder(tmp_path / "stored", truth)
    assert stored == pytest.approx({key: value for key, value in rows["hierarchy"].items() if key in stored})
    monkeypatch.setattr(sys, "argv", ["measure", str(tmp_path), "--split", "test"])
    with pytest.raises(SystemExit, match="1"):
        measure.command()
    assert capsys.readouterr().err == f"error: {tmp_path}/instances_test.json: no such file\n"
