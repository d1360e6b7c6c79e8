"""The whole panoptic chain on nine tiny scenes, through the stages' own entries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from chain import digests
from panoptic_chain import HEIGHT, STAGES, WIDTH, box_pixels, instances_in, labels_of, prepare, read, run

from stages.labels import rle
from stages.labels.figures import PROPOSALS
from stages.labels.panoptic import read_panoptic
from stages.labels.segments import read_segments
from stages.runtime.errors import UserError


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("panoptic")
    prepare(folder)
    for stage in STAGES:
        run(f"pipelines.panoptic.{stage}", folder)
    return folder


def test_approximate_labels(chain):
    weak = read(chain / "data/annotations/train_weak.json")
    things = {item["id"] for item in weak["categories"] if item["isthing"]}
    assert sorted(path.name for path in (chain / "data/panoptic/rounds").iterdir()) == ["0", "1", "2"]
    decided = 0
    for image in weak["images"]:
        own = [item for item in weak["annotations"] if item["image_id"] == image["id"]]
        assert np.array_equal(labels_of(chain, "cues/labels", image), labels_of(chain, "rounds/0", image))
        for number in "012":
            labels, instances = labels_of(chain, f"rounds/{number}", image), instances_in(chain, number, image)
            assert set(np.unique(labels)) <= {255, *image["tags"]}, "sky and ground leave nothing for the background"
            for category in things:
                boxes = [item["bbox"] for item in own if item["category_id"] == category]
                assert not (labels == category)[~box_pixels(boxes)].any(), "a thing is inside a box of its class"
            for place, item in enumerate(own, start=1):
                mask = instances == place
                assert (labels[mask] == item["category_id"]).all()
                assert not mask[~box_pixels([item["bbox"]])].any()
            assert np.array_equal(instances == 0, np.isin(labels, list({11, 12})))
            for crop in image["tag_crops"]:
                x, y, w, h = crop["bbox"]
                assert set(np.unique(labels[y:y + h, x:x + w])) <= {255, *crop["tags"]}
            decided += (labels != 255).sum()
        agreement = labels_of(chain, "cues/agreement", image)
        assert (labels_of(chain, "rounds/1", image)[agreement != 255] == agreement[agreement != 255]).all(), (
            "in the merged rounds the agreement stays")
    assert decided > 0
    assert set(read(chain / "models/panoptic/classifier/metrics.json")) == {"train", "val"}
    assert sorted(path.name for path in (chain / "models/panoptic/segmenter/curves").iterdir()) == ["round1", "round2"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_pixel_is_explained(chain, split):
    weak = read(chain / f"data/annotations/{split}_weak.json")
    labels = read(chain / f"data/panoptic/pseudo_labels{'' if split == 'train' else '_val'}.json")
    name = "panoptic" if split == "train" else "panoptic_val"
    panoptic = read_panoptic(chain / f"data/panoptic/{name}.json")
    things = {item["id"] for item in weak["categories"] if item["isthing"]}
    infos = {item["image_id"]: item for item in panoptic["annotations"]}
    for image in weak["images"]:
        own = [item for item in labels["annotations"] if item["image_id"] == image["id"]]
        masks = [rle.decode(item["segmentation"]) for item in own]
        assert (np.sum(masks, axis=0) == 1).all()
        stuff = [item["category_id"] for item in own if item["category_id"] not in things]
        assert len(stuff) == len(set(stuff)) and all(item["score"] == 1 for item in own if item["category_id"] in stuff)
        assert all(item["score"] == item["scores"]["detection"] and 0 <= item["scores"]["confidence"] <= 1
                   for item in own)
        if split == "train":
            given = {item["id"]: item["category_id"] for item in weak["annotations"]}
            assert all(given[item["weak_id"]] == item["category_id"] for item in own if item["category_id"] in things)
            assert {item["category_id"] for item in own} <= set(image["tags"])
        info = infos[image["id"]]
        segments = read_segments(chain / "data/panoptic" / name / info["file_name"], (HEIGHT, WIDTH),
                                 info["segments_info"])
        for place, part in enumerate(info["segments_info"], start=1):
            assert any(item["category_id"] == part["category_id"] and np.array_equal(segments == place, mask)
                       for item, mask in zip(own, masks, strict=True))
        semantic = labels_of(chain, "semantic", image)
        for item, mask in zip(own, masks, strict=True):
            assert (semantic[mask] == item["category_id"]).all()


def test_score_measures_cues_and_rounds(chain, tmp_path):
    """Whoever makes labels may not know the truth: the maps are listed, and `score` compares them."""
    copy(chain, tmp_path, "data")
    run("stages.evaluation.score", tmp_path)
    scores = read(tmp_path / "metrics/detail/score.json")
    maps = scores["train"]["maps"]
    assert list(maps) == ["box", "proposal", "grabcut", "agreement", "stuff", "round_0", "round_1", "round_2",
                          "network"]
    assert maps["box"]["things"]["recall"] >= maps["agreement"]["things"]["recall"], "every object lies in its box"
    assert maps["agreement"]["things"]["precision"] >= maps["box"]["things"]["precision"]
    assert all("PQ" in maps[f"round_{number}"] for number in range(3))
    assert maps["network"]["decided_pixels"] == 100
    for split in ("train", "val"):
        output = scores[split]["panoptic_output"]
        assert output["available"] == 1 and {"detection", "confidence", "oracle"} <= set(output["ranked"])
    rows = read(tmp_path / "metrics/plots/rounds.json")
    assert [row["round"] for row in rows] == [0, 1, 2]


def test_detections_are_boxes_alone(chain):
    found = read(chain / "data/panoptic/detections.json")
    ids = {image["id"] for image in read(chain / "data/annotations/val_weak.json")["images"]}
    assert found and {item["image_id"] for item in found} <= ids
    assert not any("segmentation" in item for item in found)


def test_figures_and_gallery(chain):
    figures = read(chain / "data/panoptic/figures.json")
    assert set(figures["figures"]) == {"undecided"}
    assert set(figures["details"]) == {"instances_per_image", "val_instances_per_image"}
    assert set(figures["proposals"]) == set(PROPOSALS)
    assert set(figures["measured"]) == {
        "pseudo_labels.json", "pseudo_labels_val.json", "panoptic.json", "panoptic", "panoptic_val.json",
        "panoptic_val", "semantic", "maps.json", "cues", "rounds"}
    panels = read(chain / "data/panoptic/gallery/panels.json")
    assert {panel["split"] for panel in panels} == {"train", "val"}
    assert all((chain / "data/panoptic/gallery" / panel["picture"]).exists() for panel in panels)
    titles = {panel["title"] for panel in panels}
    for wanted in ("GrabCut", "proposal", "both agree", "Grad-CAM", "after training 2", "panoptic output"):
        assert any(wanted in title for title in titles), wanted


def test_the_same_bytes_again(chain, tmp_path):
    prepare(tmp_path)
    for stage in STAGES:
        run(f"pipelines.panoptic.{stage}", tmp_path)
    for name in ("data/panoptic", "models/panoptic"):
        assert digests(chain / name) == digests(tmp_path / name)


def copy(chain: Path, folder: Path, *names: str) -> Path:
    for name in names:
        shutil.copytree(chain / name, folder / name)
    return folder


BEFORE = ("data/dataset", "data/annotations", "data/panoptic/cues", "data/panoptic/boxes")


def test_one_round_more_trains_that_one_only(chain, tmp_path):
    copy(chain, tmp_path, *BEFORE)
    run("pipelines.panoptic.refine", tmp_path, rounds={"rounds": 1})
    kept = tmp_path / ".work/panoptic-rounds/0"
    first = {path: path.stat().st_mtime_ns for path in sorted(kept.rglob("*.p*"))}
    assert (kept / "network/weights.pt") in first and len(first) > 6
    run("pipelines.panoptic.refine", tmp_path, rounds={"rounds": 2})
    assert {path: path.stat().st_mtime_ns for path in sorted(kept.rglob("*.p*"))} == first
    for name in ("data/panoptic/rounds", "models/panoptic/segmenter"):
        assert digests(tmp_path / name) == digests(chain / name), "as if both had been asked for at once"
    run("pipelines.panoptic.refine", tmp_path, rounds={"rounds": 1})
    assert sorted(path.name for path in (tmp_path / "data/panoptic/rounds").iterdir()) == ["0", "1"]
    assert (tmp_path / ".work/panoptic-rounds/1/labels").exists(), "what is done is kept"


def test_a_restart_goes_on_from_the_last_round(chain, tmp_path, monkeypatch):
    from pipelines.panoptic import rounds

    copy(chain, tmp_path, *BEFORE)
    trained, real = [], rounds.train_round

    def interrupted(*arguments):
        trained.append(arguments[-1])
        if trained == [0, 1]:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(rounds, "train_round", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("pipelines.panoptic.refine", tmp_path)
    assert not (tmp_path / "data/panoptic/rounds").exists()
    run("pipelines.panoptic.refine", tmp_path)
    assert trained == [0, 1, 1]
    for name in ("data/panoptic/rounds", "models/panoptic/segmenter"):
        assert digests(tmp_path / name) == digests(chain / name)


def test_other_settings_begin_anew(chain, tmp_path):
    copy(chain, tmp_path, *BEFORE)
    run("pipelines.panoptic.refine", tmp_path, rounds={"rounds": 1})
    before = digests(tmp_path / "models/panoptic/segmenter")["weights.pt"]
    run("pipelines.panoptic.refine", tmp_path, rounds={"rounds": 1}, network={"learning_rate": 0.002})
    assert digests(tmp_path / "models/panoptic/segmenter")["weights.pt"] != before


def test_merged_rounds_keep_the_proposals_that_count_alone(chain, tmp_path):
    """Below 1 every box has its proposal, in the first labels and in those that a network gives."""
    copy(chain, tmp_path, "data/dataset", "data/annotations", "data/panoptic/boxes", "data/panoptic/stuff")
    changes = {"rounds": 1, "proposal_below": 1.0}
    run("pipelines.panoptic.join_cues", tmp_path, rounds=changes)
    run("pipelines.panoptic.refine", tmp_path, rounds=changes)
    more = 0
    for image in read(tmp_path / "data/annotations/train_weak.json")["images"]:
        proposal, agreement = (labels_of(tmp_path, f"cues/{name}", image) for name in ("proposal", "agreement"))
        said = proposal != 255
        more += int((said & (agreement == 255)).sum())
        for place in ("rounds/0", "rounds/1"):
            assert (labels_of(tmp_path, place, image)[said] == proposal[said]).all(), place
    assert more > 0


def test_the_rate_is_halved_and_the_weights_go_on(chain, tmp_path):
    curves = chain / "models/panoptic/segmenter/curves"
    rates = [max(float(line.split("\t")[1]) for line in (
        curves / f"round{number}/plots/metrics/learning_rate.tsv").read_text().splitlines()[1:]) for number in (1, 2)]
    assert rates[1] == pytest.approx(rates[0] / 2)
    copy(chain, tmp_path, *BEFORE)
    run("pipelines.panoptic.refine", tmp_path, rounds={"restart": True})
    for number in ("1", "2"):
        same = digests(tmp_path / f"data/panoptic/rounds/{number}") == digests(chain / f"data/panoptic/rounds/{number}")
        assert same == (number == "1"), "the first round has nothing to go on from"


def test_piecewise_leaves_the_semantic_network_alone(chain, tmp_path):
    import torch

    copy(chain, tmp_path, "data/dataset", "data/annotations", "data/panoptic/rounds", "models/panoptic/segmenter")
    semantic = torch.load(chain / "models/panoptic/segmenter/weights.pt", weights_only=True)
    for end_to_end in (False, True):
        run("pipelines.panoptic.train_instances", tmp_path, instances={"end_to_end": end_to_end, "labels": "used"})
        state = torch.load(tmp_path / "models/panoptic/instances/weights.pt", weights_only=True)
        same = all(torch.equal(state[f"semantic.{name}"], value) for name, value in semantic.items())
        assert same != end_to_end
        scalars = read(tmp_path / "models/panoptic/instances/head.json")
        assert set(scalars) == {"box_weight", "global_weight", "gaussian_weight", "bilateral_weight"}
        assert scalars["bilateral_weight"] != 4


@pytest.mark.parametrize("source", ["box", "grabcut", "proposal", "agreement"])
def test_labels_of_the_cues_alone(chain, tmp_path, source):
    copy(chain, tmp_path, "data", "models")
    run("pipelines.panoptic.synthesize", tmp_path, synthesis={"source": source})
    weak = read(tmp_path / "data/annotations/train_weak.json")
    labels = read(tmp_path / "data/panoptic/pseudo_labels.json")["annotations"]
    boxes = {item["id"]: item for item in weak["annotations"]}
    assert len(labels) <= len(boxes) and (source != "box" or len(labels) == len(boxes))
    for item in labels:
        given = boxes[item["weak_id"]]
        mask = rle.decode(item["segmentation"])
        assert item["category_id"] == given["category_id"] and not mask[~box_pixels([given["bbox"]])].any()
        assert source != "box" or mask.sum() == given["bbox"][2] * given["bbox"][3]


def test_a_mix_of_weak_and_full_labels(tmp_path):
    mix = {"kinds": ["boxes", "tags", "masks"], "masked_images": 0.5}
    prepare(tmp_path, mix)
    for stage in STAGES:
        run(f"pipelines.panoptic.{stage}", tmp_path, mix)
    weak = read(tmp_path / "data/annotations/train_weak.json")
    truth = read(tmp_path / "data/dataset/train_truth.json")
    labels = read(tmp_path / "data/panoptic/pseudo_labels.json")["annotations"]
    full = [image for image in weak["images"] if image.get("fully_labelled")]
    assert len(full) == 3
    for image in full:
        own = [item for item in truth["annotations"] if item["image_id"] == image["id"]]
        named = np.zeros((HEIGHT, WIDTH), int)
        for item in own:
            named[rle.decode(item["segmentation"])] = item["category_id"]
        for place in ("cues/labels", "cues/agreement", "rounds/0", "rounds/1", "rounds/2", "semantic"):
            assert np.array_equal(labels_of(tmp_path, place, image), named), place
        found = [item for item in labels if item["image_id"] == image["id"]]
        assert sorted(json.dumps(item["segmentation"]) for item in found) == sorted(
            json.dumps(item["segmentation"]) for item in own)
        instances = instances_in(tmp_path, "2", image)
        things = [item for item in own if item["category_id"] < 10]
        assert len(np.unique(instances[instances > 0])) == len(things)


def test_a_data_set_of_things_alone(tmp_path):
    """No stuff: nothing to classify, the background is a class, and every label is a thing's."""
    for module in ("stages.prepare.prepare", "stages.prepare.annotate"):
        run(module, tmp_path)
    for part in ("train", "val"):
        path = tmp_path / f"data/annotations/{part}_weak.json"
        content = read(path)
        content["categories"] = [item for item in content["categories"] if item["isthing"]]
        known = {item["id"] for item in content["categories"]}
        for image in content["images"]:
            image.pop("tag_crops", None)
            image["tags"] = [tag for tag in image["tags"] if tag in known]
        path.write_text(json.dumps(content))
    run("stages.proposals.propose", tmp_path)
    for stage in STAGES:
        run(f"pipelines.panoptic.{stage}", tmp_path)
    for name in ("models/panoptic/classifier", "data/panoptic/stuff"):
        assert [path.name for path in (tmp_path / name).iterdir()] == ["skipped.json"]
    weak = read(tmp_path / "data/annotations/train_weak.json")
    for image in weak["images"]:
        inside = box_pixels([item["bbox"] for item in weak["annotations"] if item["image_id"] == image["id"]])
        for number in "012":
            labels = labels_of(tmp_path, f"rounds/{number}", image)
            assert (labels[~inside] == 0).all(), "outside all boxes is background"
    labels = read(tmp_path / "data/panoptic/pseudo_labels.json")["annotations"]
    assert {item["category_id"] for item in labels} <= known


def test_tags_of_stuff_that_are_nowhere_are_said(chain, tmp_path):
    copy(chain, tmp_path, "data/dataset", "data/annotations")
    path = tmp_path / "data/annotations/train_weak.json"
    content = read(path)
    for image in content["images"]:
        image["tags"] = [tag for tag in image["tags"] if tag < 10]
        for crop in image["tag_crops"]:
            crop["tags"] = [tag for tag in crop["tags"] if tag < 10]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="no image has a tag of stuff"):
        run("pipelines.panoptic.train_classifier", tmp_path)


def test_objects_without_boxes_are_said(chain, tmp_path):
    copy(chain, tmp_path, "data/dataset", "data/annotations", "data/proposals")
    path = tmp_path / "data/annotations/train_weak.json"
    content = read(path)
    for annotation in content["annotations"]:
        del annotation["bbox"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"without a box; annotations.kinds must be \[boxes, tags\]"):
        run("pipelines.panoptic.segment_boxes", tmp_path)
