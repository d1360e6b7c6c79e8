"""The whole BESTIE chain on nine tiny scenes, through the stages' own entries, with tags and with points."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from chain import assert_given, digests, mixed
from small_chain import HEIGHT, POINTS, STAGES, WIDTH, copy, prepare, read, run, see_no_background

from stages.labels import rle
from stages.labels.figures import content_digest
from stages.runtime.errors import UserError


@pytest.mark.parametrize("variant", ["tags", "points"])
def test_labels(variant, request, tmp_path):
    folder, changes = request.getfixturevalue(variant), POINTS if variant == "points" else {}
    copy(folder, tmp_path)
    see_no_background(tmp_path / "models/bestie/retrained")
    run("pipelines.bestie.synthesize", tmp_path, **changes)
    weak = read(tmp_path / "data/annotations/train_weak.json")
    labels = read(tmp_path / "data/bestie/pseudo_labels.json")
    things = {category["id"] for category in weak["categories"] if category["isthing"]}
    for image in weak["images"]:
        wanted = set(image["tags"]) & things
        taken = np.zeros((HEIGHT, WIDTH), bool)
        own = [annotation for annotation in labels["annotations"] if annotation["image_id"] == image["id"]]
        for annotation in own:
            assert annotation["category_id"] in wanted
            assert 0 <= annotation["score"] <= 1
            mask = rle.decode(annotation["segmentation"]) > 0
            assert mask.sum() == annotation["area"] > 0
            assert not (taken & mask).any(), "no pixel belongs to two"
            taken |= mask
        # Components of fewer than nine pixels are left out; points share all of the foreground.
        assert taken.mean() > (0.9 if variant == "tags" else 0.999)
        if variant == "points":
            given = [one for one in weak["annotations"] if one["image_id"] == image["id"]]
            assert len(own) <= sum(one["category_id"] in things for one in given)
    val = read(tmp_path / "data/bestie/pseudo_labels_val.json")
    assert len(val["images"]) == 3 and val["annotations"]
    figures = read(tmp_path / "data/bestie/figures.json")
    assert figures["figures"]["instances_per_image"] == round(len(labels["annotations"]) / 6, 3)
    data = tmp_path / "data/bestie"
    assert figures["measured"] == {name: content_digest(data / name) for name in (
        "moments.json", "pseudo_labels_val.json", "semantic")}
    assert (tmp_path / "data/bestie/moments.json").read_bytes() == (
        tmp_path / "models/bestie/retrained/moments.json").read_bytes()


def test_the_foreground_of_the_maps(points, tmp_path):
    """Every pixel whose class has a point belongs to a label of its class, and no other pixel does."""
    copy(points, tmp_path)
    run("pipelines.bestie.synthesize", tmp_path, **POINTS, synthesis={"foreground": "map"})
    weak = read(tmp_path / "data/annotations/train_weak.json")
    labels = read(tmp_path / "data/bestie/pseudo_labels.json")["annotations"]
    assert labels
    for image in weak["images"]:
        known = cv2.imread(str(tmp_path / f"data/bestie/semantic/{image['id']:012d}.png"), cv2.IMREAD_UNCHANGED)
        pointed = {one["category_id"] for one in weak["annotations"] if one["image_id"] == image["id"]}
        painted = np.zeros_like(known)
        for label in labels:
            if label["image_id"] == image["id"]:
                painted[rle.decode(label["segmentation"]) > 0] = label["category_id"]
        assert np.array_equal(painted, np.where(np.isin(known, [*pointed]), known, 0))


def test_what_score_measures_changes_the_figures(tags, tmp_path):
    """`score` depends on labels and figures alone, and measures the maps: those of another run must not pass."""
    copy(tags, tmp_path)
    path = sorted((tmp_path / "data/bestie/semantic").iterdir())[0]
    semantic = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), np.where(semantic == 0, 255, semantic))
    run("pipelines.bestie.synthesize", tmp_path)
    before, after = digests(tags / "data/bestie"), digests(tmp_path / "data/bestie")
    assert after["pseudo_labels.json"] == before["pseudo_labels.json"]
    assert after["figures.json"] != before["figures.json"]


def test_images_labelled_in_full_keep_their_masks(tags, tmp_path):
    full = mixed(tags, tmp_path, ["tags", "points"], "data/bestie/cues", "maps", "models/bestie")
    for path in (tmp_path / "maps").iterdir():
        cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH), np.uint8))
    run("pipelines.bestie.infer_semantic", tmp_path)
    for image in read(tmp_path / "data/annotations/train_weak.json")["images"]:
        made, true = (cv2.imread(str(folder / f"{image['id']:012d}.png"), cv2.IMREAD_UNCHANGED)
                      for folder in (tmp_path / "data/bestie/semantic", tags / "maps"))
        assert np.array_equal(made, true if image["id"] in full else np.zeros_like(true))
    run("pipelines.bestie.synthesize", tmp_path)
    assert_given(tags, tmp_path, "bestie", full)


def test_cues_of_tags(tags):
    weak = read(tags / "data/annotations/train_weak.json")
    found = 0
    for image in weak["images"]:
        cues = np.load(tags / f"data/bestie/cues/{image['id']:012d}.npz")
        assert set(cues["cues"][:, 0].tolist()) <= set(image["tags"])
        assert (cues["cues"][:, 1] < HEIGHT).all() and (cues["cues"][:, 2] < WIDTH).all()
        assert (cues["scores"] > 0.3).all() and cues["attention"].shape == (HEIGHT // 4, WIDTH // 4)
        found += len(cues["cues"])
    assert found > 0
    assert set(read(tags / "models/bestie/classifier/metrics.json")) == {"train", "val"}


def test_points_are_the_cues_and_nothing_superfluous_is_trained(points):
    weak = read(points / "data/annotations/train_weak.json")
    for image in weak["images"]:
        cues = np.load(points / f"data/bestie/cues/{image['id']:012d}.npz")["cues"].tolist()
        assert cues == [[one["category_id"], round(one["point"][1]), round(one["point"][0])]
                        for one in weak["annotations"] if one["image_id"] == image["id"]]
        semantic = cv2.imread(str(points / f"data/bestie/semantic/{image['id']:012d}.png"), cv2.IMREAD_UNCHANGED)
        given = cv2.imread(str(points / f"maps/{image['id']:012d}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(semantic, given)
    for name in ("classifier", "segmenter"):
        assert [path.name for path in (points / "models/bestie" / name).iterdir()] == ["skipped.json"]
    labels = read(points / "data/bestie/pseudo_labels.json")
    assert len(labels["annotations"]) <= len(weak["annotations"])


def test_predicted_maps_hold_the_tags_alone(tags, tmp_path):
    for name in ("data/dataset", "data/annotations", "maps"):
        shutil.copytree(tags / name, tmp_path / name)
    for stage in ("train_segmenter", "infer_semantic"):
        run(f"pipelines.bestie.{stage}", tmp_path, maps={"source": "segmenter"})
    assert (tmp_path / "models/bestie/segmenter/weights.pt").exists()
    for image in read(tags / "data/annotations/train_weak.json")["images"]:
        semantic = cv2.imread(str(tmp_path / f"data/bestie/semantic/{image['id']:012d}.png"),
                              cv2.IMREAD_UNCHANGED)
        assert semantic.shape == (HEIGHT, WIDTH) and set(np.unique(semantic)) <= {0, *image["tags"]}


def test_the_same_bytes_again(tags, tmp_path):
    prepare(tmp_path)
    for stage in STAGES:
        run(f"pipelines.bestie.{stage}", tmp_path)
    for name in ("data/bestie", "models/bestie"):
        assert digests(tags / name) == digests(tmp_path / name)


def test_labels_of_some_moments(tags, points):
    for folder in (tags, points):
        found = read(folder / "models/bestie/refiner/moments.json")
        assert len(found["images"]) == 3
        assert [moment["share"] for moment in found["moments"]] == [0.25, 0.5, 0.75, 1.0]
        for moment in found["moments"]:
            assert {one["kind"] for one in moment["annotations"]} <= {"pseudo", "refined"}
            assert {one["image_id"] for one in moment["annotations"]} <= set(found["images"])
            assert all(rle.decode(one["segmentation"]).shape == (HEIGHT, WIDTH) for one in moment["annotations"])
        assert any(one["kind"] == "refined" for one in found["moments"][-1]["annotations"])


def test_gallery(tags, points):
    for folder in (tags, points):
        panels = read(folder / "data/bestie/gallery/panels.json")
        assert len({panel["image_id"] for panel in panels}) == 2
        assert all((folder / "data/bestie/gallery" / panel["picture"]).exists() for panel in panels)


@pytest.mark.parametrize("change", [{"guidance": False}, {"refinement": {"enabled": False}},
                                    {"refinement": {"start": 0.5}}, {"average": True, "hardest": 0.2}], ids=str)
def test_rows_of_the_ablation_train(tags, change):
    """What the settings of tables 3 and 6 switch does run, and changes the weights."""
    before = digests(tags / "models/bestie/refiner")["weights.pt"]
    kept = (tags / "models/bestie/refiner").rename(tags / "kept")
    try:
        run("pipelines.bestie.train_refiner", tags, network=change)
        assert digests(tags / "models/bestie/refiner")["weights.pt"] != before
    finally:
        shutil.rmtree(tags / "models/bestie/refiner")
        kept.rename(tags / "models/bestie/refiner")


def test_missing_maps_and_points_are_said(tmp_path):
    prepare(tmp_path)
    first = sorted((tmp_path / "maps").iterdir())[0]
    first.unlink()
    for stage in ("train_segmenter", "infer_semantic"):
        with pytest.raises(UserError, match=first.stem):
            run(f"pipelines.bestie.{stage}", tmp_path,
                maps={"source": "segmenter" if stage == "train_segmenter" else "folder"})
    weak = tmp_path / "data/annotations/train_weak.json"
    content = read(weak)
    for annotation in content["annotations"]:
        annotation.pop("point")
    weak.write_text(json.dumps(content))
    with pytest.raises(UserError, match="bestie.cues.source is points"):
        run("pipelines.bestie.infer_cues", tmp_path, **POINTS)
