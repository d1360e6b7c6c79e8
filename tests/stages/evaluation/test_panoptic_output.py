"""Panoptic files against the truth: by hand, by a plain count, by torchmetrics, and as a panoptic data set's reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.evaluation.headline import headline_of_labels
from stages.evaluation.inputs import Truth
from stages.evaluation.panoptic_output import measure_panoptic
from stages.evaluation.score import main
from stages.labels import rle
from stages.labels.figures import Figures
from stages.labels.panoptic import png_folder, write_panoptic
from stages.labels.segments import join_stuff, write_segments
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from stages.runtime.settings import RuntimeSettings
from tests.stages.evaluation.conftest import write_perfect_output
from tests.stages.evaluation.scenes import annotation

ONE = RuntimeSettings(workers=1)
CATEGORIES = [{"id": 1, "name": "cat", "isthing": 1}, {"id": 2, "name": "dog", "isthing": 1},
              {"id": 7, "name": "sky", "isthing": 0}, {"id": 9, "name": "sea", "isthing": 0}]


def grid(rows: str) -> np.ndarray:
    """``"112 1 ..0"`` as a map of digits; a dot is 0."""
    return np.array([[int(pixel.replace(".", "0")) for pixel in row] for row in rows.split()])


def truth_of(images: list[tuple[np.ndarray, dict[int, tuple[int, int]]]]) -> Truth:
    """Truth of segment maps, each with segment -> (category, crowd); other pixels are void."""
    records, rows = [], []
    for number, (segments, classes) in enumerate(images, start=1):
        height, width = segments.shape
        record = {"id": number, "file_name": f"{number}.jpg", "height": height, "width": width}
        if (segments == 0).any():
            record["void"] = rle.encode(segments == 0)
        records.append(record)
        rows += [annotation(0, number, category, segments == segment, iscrowd=crowd)
                 for segment, (category, crowd) in classes.items() if (segments == segment).any()]
    rows = [{**row, "id": place} for place, row in enumerate(rows, start=1)]
    return Truth(Path("truth.json"), records, CATEGORIES, rows, "")


def write(folder, truth: Truth, images: list[tuple[np.ndarray, dict[int, int], dict[int, dict]]]):
    """A panoptic file of segment maps, each with segment -> category and segment -> scores."""
    path = folder / "panoptic.json"
    annotations = [write_segments(png_folder(path), image, segments, [
        {"id": segment, "category_id": category, **scores.get(segment, {})} for segment, category in classes.items()])
        for image, (segments, classes, scores) in zip(truth.images, images, strict=True)]
    write_panoptic(path, truth.images, CATEGORIES, annotations)
    return path


def plain_count(truths, predictions) -> dict[int, list[float]]:
    """Category -> IoU sum, hits, false alarms, misses: panopticapi's rules, pixel by pixel and segment by segment."""
    found: dict[int, list[float]] = {category["id"]: [0.0, 0, 0, 0] for category in CATEGORIES}
    for (true, true_classes), (predicted, classes, _) in zip(truths, predictions, strict=True):
        pixels = [set() for _ in range(2)]
        areas = [{}, {}]
        for place, (segments, names) in enumerate(((true, true_classes), (predicted, classes))):
            for segment in names:
                areas[place][segment] = {(y, x) for y in range(segments.shape[0]) for x in range(segments.shape[1])
                                         if segments[y, x] == segment}
            pixels[place] = {pixel for area in areas[place].values() for pixel in area}
        void = {(y, x) for y in range(true.shape[0]) for x in range(true.shape[1])} - pixels[0]
        taken, matched = set(), set()
        for segment, (category, crowd) in true_classes.items():
            for other, own in classes.items():
                if crowd or own != category or not areas[0][segment]:
                    continue
                both = areas[0][segment] & areas[1][other]
                union = areas[0][segment] | (areas[1][other] - void)
                if len(both) / len(union) > 0.5:
                    found[category][0] += len(both) / len(union)
                    found[category][1] += 1
                    taken.add(other)
                    matched.add(segment)
        for segment, (category, crowd) in true_classes.items():
            found[category][3] += int(not crowd and segment not in matched and bool(areas[0][segment]))
        for other, category in classes.items():
            crowds = [areas[0][segment] for segment, (own, crowd) in true_classes.items() if crowd and own == category]
            excused = areas[1][other] & void.union(*crowds)
            if other not in taken and areas[1][other] and len(excused) / len(areas[1][other]) <= 0.5:
                found[category][2] += 1
    return found


def plain_quality(truths, predictions, classes) -> dict[str, float]:
    """PQ, SQ and DQ in percent, means over the classes with a segment that counts."""
    rows = []
    for category, (iou, hits, false, missed) in plain_count(truths, predictions).items():
        if category in classes and hits + false + missed:
            quality = hits / (hits + false / 2 + missed / 2)
            rows.append(((iou / hits if hits else 0) * quality, iou / hits if hits else 0, quality))
    return {name: 100 * float(np.mean([row[place] for row in rows])) for place, name in enumerate(("PQ", "SQ", "DQ"))}


SCENE = grid("77777777 77711177 77711177 99911199 9999..99 99993333")
CLASSES = {7: (7, 0), 1: (1, 0), 9: (9, 0), 3: (2, 1)}


def test_by_hand(tmp_path):
    """A cat found with 7 of 9 pixels, sky whole, sea missed for sky, a dog on the crowd of dogs, a cat in void."""
    predicted = grid("....7777 77711177 77711177 77777177 7777..77 7777....")
    predicted[4, 4:6] = 5  # a cat in void
    predicted[5, 4:] = 4   # a dog, on the crowd of dogs
    truths, predictions = [(SCENE, CLASSES)], [(predicted, {7: 7, 1: 1, 4: 2, 5: 1}, {})]
    truth = truth_of(truths)
    found = measure_panoptic(write(tmp_path, truth, predictions), truth, ONE)
    assert found["available"] == 1
    # Cat: IoU 7 / 9. Dog: nothing counts. Sky: 14 of 35, not above one half. Sea: missed.
    assert found["things"] == pytest.approx({"PQ": 77.778, "SQ": 77.778, "DQ": 100.0}, abs=1e-3)
    sky = np.logical_and(predicted == 7, SCENE == 7).sum() / np.logical_or(predicted == 7, SCENE == 7).sum()
    assert sky == 14 / 35 and found["stuff"] == {"PQ": 0.0, "SQ": 0.0, "DQ": 0.0}
    assert found["all"]["PQ"] == pytest.approx(77.778 / 3, abs=1e-3)
    assert found["all"] == pytest.approx(plain_quality(truths, predictions, {1, 2, 7, 9}), abs=1e-3)


def random_scene(random):
    """Truth with void, crowds, things and stuff; and something like it."""
    segments, classes = np.zeros((24, 30), int), {}
    segments[: random.integers(4, 20)] = 71
    segments[random.integers(8, 23):] = 91
    classes |= {71: (7, 0), 91: (9, 0)}
    for number in range(1, 9):
        x, y, w, h = *random.integers(0, 26, 2), *random.integers(2, 12, 2)
        segments[y:y + h, x:x + w] = number
        classes[number] = (int(random.integers(1, 3)), int(random.random() < 0.25))
    segments[random.random(segments.shape) < 0.05] = 0
    predicted = np.roll(segments, random.integers(0, 3), axis=1)
    predicted[predicted == random.integers(1, 9)] = 0
    predicted[:, random.integers(0, 30)] = 0
    own = {number: category if random.random() < 0.8 or category > 2 else 3 - category
           for number, (category, _) in classes.items()}
    scores = {number: {"score": float(random.random()), "scores": {"mean": float(random.random())}} for number in own}
    present = {*np.unique(predicted).tolist()}
    return ((segments, {number: value for number, value in classes.items() if (segments == number).any()}),
            (predicted, {number: value for number, value in own.items() if number in present}, scores))


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_a_plain_count(tmp_path, seed):
    random = np.random.default_rng(seed)
    truths, predictions = zip(*(random_scene(random) for _ in range(6)), strict=True)
    truth = truth_of(list(truths))
    found = measure_panoptic(write(tmp_path, truth, list(predictions)), truth, ONE)
    for group, classes in (("all", {1, 2, 7, 9}), ("things", {1, 2}), ("stuff", {7, 9})):
        assert found[group] == pytest.approx(plain_quality(truths, predictions, classes), abs=1e-3)
    two = measure_panoptic(tmp_path / "panoptic.json", truth, RuntimeSettings(workers=2))
    assert two == found


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_torchmetrics(tmp_path, seed):
    """It knows void in the truth (any other category) and no crowds; what a prediction leaves open it counts for
    nothing, unlike panopticapi, so that here predictions leave nothing open."""
    torch, detection = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.detection")
    random = np.random.default_rng(10 + seed)
    metric = detection.PanopticQuality(things={1, 2}, stuffs={7, 9}, allow_unknown_preds_category=True,
                                       return_sq_and_rq=True)
    truths, predictions = [], []
    for _ in range(5):
        (segments, classes), prediction = random_scene(random)
        classes = {number: (category, 0) for number, (category, _) in classes.items()}
        filled = np.where(prediction[0] == 0, 71, prediction[0])
        prediction = (filled, {**prediction[1], 71: 7}, prediction[2])
        truths.append((segments, classes))
        predictions.append(prediction)
        metric.update(coloured(torch, prediction[0], prediction[1]),
                      coloured(torch, segments, {number: category for number, (category, _) in classes.items()}))
    truth = truth_of(truths)
    found = measure_panoptic(write(tmp_path, truth, predictions), truth, ONE)["all"]
    assert [found[name] for name in ("PQ", "SQ", "DQ")] == pytest.approx(
        [100 * value for value in metric.compute().tolist()], abs=1e-2)


def test_detectron2_reads_the_same(tmp_path):
    """Truth and output through Detectron2's reader of COCO panoptic, counted plainly: the same figures."""
    coco_panoptic = pytest.importorskip("detectron2.data.datasets.coco_panoptic")
    random = np.random.default_rng(20)
    truths, predictions = zip(*(random_scene(random) for _ in range(4)), strict=True)
    truth = truth_of(list(truths))
    (tmp_path / "true").mkdir()
    true_path = tmp_path / "true/panoptic.json"
    write_panoptic(true_path, truth.images, CATEGORIES, [
        write_segments(png_folder(true_path), image, segments, [
            {"id": segment, "category_id": category, "iscrowd": crowd}
            for segment, (category, crowd) in classes.items()])
        for image, (segments, classes) in zip(truth.images, truths, strict=True)])
    path = write(tmp_path, truth, list(predictions))
    for number in range(1, 5):
        (tmp_path / f"{number:012d}.jpg").write_bytes(b"")  # the reader looks whether the pictures are there
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    meta = {"thing_dataset_id_to_contiguous_id": {1: 1, 2: 2}, "stuff_dataset_id_to_contiguous_id": {7: 7, 9: 9}}
    read = [coco_panoptic.load_coco_panoptic_json(str(file), str(tmp_path), str(png_folder(file)), meta)
            for file in (true_path, path)]
    maps = [[pixels_of(row["pan_seg_file_name"]) for row in rows] for rows in read]
    trues = [(segments, {item["id"]: (item["category_id"], item["iscrowd"]) for item in row["segments_info"]})
             for segments, row in zip(maps[0], read[0], strict=True)]
    found = [(segments, {item["id"]: item["category_id"] for item in row["segments_info"]}, {})
             for segments, row in zip(maps[1], read[1], strict=True)]
    assert any(crowd for _, classes in trues for _, crowd in classes.values())
    assert all(item["isthing"] == (item["category_id"] < 3) for row in read[1] for item in row["segments_info"])
    measured = measure_panoptic(path, truth, ONE)
    for group, classes in (("all", {1, 2, 7, 9}), ("things", {1, 2}), ("stuff", {7, 9})):
        assert measured[group] == pytest.approx(plain_quality(trues, found, classes), abs=1e-3)


def pixels_of(png) -> np.ndarray:
    """Segment ids (H, W) of a panoptic PNG, by the format's formula."""
    return np.asarray(Image.open(png).convert("RGB")).astype(int) @ np.array([1, 256, 256 ** 2])


def coloured(torch, segments, classes):
    """(1, H, W, 2) of category, 0 for void, and instance."""
    table = np.zeros(100, int)
    table[list(classes)] = list(classes.values())
    return torch.tensor(np.stack([table[segments], segments], axis=-1)[None])


def test_classes_that_the_output_alone_shows_count(tmp_path):
    truths, predicted = [(grid("7777 7777"), {7: (7, 0)})], [(grid("7777 7777"), {7: 9}, {})]
    truth = truth_of(truths)
    found = measure_panoptic(write(tmp_path, truth, predicted), truth, ONE)
    assert found["stuff"]["PQ"] == found["all"]["PQ"] == 0.0 and "things" not in found


def test_truth_of_things_alone_has_a_background(tmp_path):
    """What is no thing is no void there, but for what the image calls void."""
    truth = truth_of([(grid("1100 1100 0000"), {1: (1, 0)})])
    del truth.images[0]["void"]
    path = write(tmp_path, truth, [(grid("1130 1130 0000"), {1: 1, 3: 1}, {})])
    assert measure_panoptic(path, truth, ONE)["things"]["DQ"] == pytest.approx(100 / 1.5, abs=1e-3)
    truth.images[0]["void"] = rle.encode(grid("0010 0010 0000"))
    assert measure_panoptic(path, truth, ONE)["things"]["DQ"] == 100.0


def test_images_without_output_are_missed(tmp_path):
    truth = truth_of([(SCENE, CLASSES), (SCENE, CLASSES)])
    whole = [(SCENE, {number: category for number, (category, crowd) in CLASSES.items()}, {})] * 2
    path = write(tmp_path, truth, whole)
    assert measure_panoptic(path, truth, ONE)["all"] == {"PQ": 100.0, "SQ": 100.0, "DQ": 100.0}
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": content["annotations"][:1]}))
    assert measure_panoptic(path, truth, ONE)["all"] == pytest.approx({"PQ": 200 / 3, "SQ": 100.0, "DQ": 200 / 3},
                                                                      abs=1e-3)


def test_stuff_in_several_annotations_is_one_segment(tmp_path):
    rows = truth_of([(SCENE, CLASSES)]).annotations
    left, right = SCENE == 7, SCENE == 7
    left[:, 4:], right[:, :4] = False, False
    sky = next(row for row in rows if row["category_id"] == 7)
    split = [row for row in rows if row is not sky] + [annotation(50, 1, 7, left), annotation(51, 1, 7, right)]
    joined = join_stuff(split, {7, 9})
    assert [item["segmentation"] for item in joined if item["category_id"] == 7] == [sky["segmentation"]]
    assert {item["area"] for item in joined if item["category_id"] == 7} == {sky["area"]} and len(joined) == len(rows)


def plain_average_precision(truths, predictions, category, threshold, key):
    """Area under the precision-recall curve, written out; ``key`` ranks (image, segment, object that it hits), best
    first; without one, every object's first hit comes before all other segments."""
    rows, objects = [], 0
    for number, ((true, true_classes), (predicted, classes, _)) in enumerate(zip(truths, predictions, strict=True)):
        own = [segment for segment, (name, crowd) in true_classes.items() if name == category and not crowd]
        crowds = [segment for segment, (name, crowd) in true_classes.items() if name == category and crowd]
        objects += len(own)
        for other, name in classes.items():
            if name != category:
                continue
            mask = predicted == other
            ious = {segment: (mask & (true == segment)).sum() / (mask | (true == segment)).sum() for segment in own}
            best = max(ious, key=lambda segment: ious[segment], default=None)
            reached = best is not None and ious[best] >= threshold
            covered = max(((mask & (true == segment)).sum() / mask.sum() for segment in crowds), default=0)
            if reached or covered < threshold:
                rows.append((number, other, (number, best) if reached else None))
    if key is None:
        firsts = {hit: place for place, (_, _, hit) in reversed(list(enumerate(rows))) if hit is not None}
        rows = [rows[place] for place in sorted(range(len(rows)), key=lambda place: place not in firsts.values())]
    else:
        rows.sort(key=key)
    seen, precision, hits = set(), [], []
    for place, (_, _, hit) in enumerate(rows, start=1):
        hits.append(hit is not None and hit not in seen)
        seen.add(hit)
        precision.append(sum(hits) / place)
    return sum(max(precision[place:]) for place, hit in enumerate(hits) if hit) / objects if objects else None


@pytest.mark.parametrize("seed", range(2))
def test_rankings_agree_with_plain_average_precision(tmp_path, seed):
    random = np.random.default_rng(20 + seed)
    truths, predictions = zip(*(random_scene(random) for _ in range(8)), strict=True)
    truth = truth_of(list(truths))
    ranked = measure_panoptic(write(tmp_path, truth, list(predictions)), truth, ONE)["ranked"]
    assert set(ranked) == {"score", "mean", "oracle"}
    keys = {"score": lambda row: -predictions[row[0]][2][row[1]]["score"],
            "mean": lambda row: -predictions[row[0]][2][row[1]]["scores"]["mean"],
            "oracle": None}
    for name, key in keys.items():
        for group, classes in (("things", (1, 2)), ("stuff", (7, 9))):
            values = {threshold: np.mean([value for value in (
                plain_average_precision(truths, predictions, category, threshold, key) for category in classes)
                if value is not None]) for threshold in (0.5, 0.65, *(step / 10 for step in range(1, 10)))}
            assert ranked[name][group]["AP50"] == pytest.approx(100 * values[0.5], abs=2e-3)
            assert ranked[name][group]["AP_vol"] == pytest.approx(
                100 * np.mean([values[step / 10] for step in range(1, 10)]), abs=2e-3)
    for group in ("things", "stuff"):
        for figure in ("AP50", "AP", "AP_vol"):
            assert ranked["oracle"][group][figure] >= max(ranked["score"][group][figure], ranked["mean"][group][figure])


def test_stuff_has_the_score_that_it_is_given_or_1(tmp_path):
    """A constant score, as the detector's is for stuff, ranks by the order of the images."""
    truths = [(grid("7777 9999"), {7: (7, 0), 9: (9, 0)})] * 2
    wrong, right = (grid("7700 9900"), {7: 9, 9: 7}), (grid("7777 9999"), {7: 7, 9: 9})
    scores = {7: {"scores": {"confidence": 0.2}}, 9: {"scores": {"confidence": 0.2}}}
    better = {7: {"scores": {"confidence": 0.9, "detection": 1.0}}, 9: {"scores": {"confidence": 0.9}}}
    truth = truth_of(truths)
    found = measure_panoptic(write(tmp_path, truth, [(*wrong, scores), (*right, better)]), truth, ONE)["ranked"]
    assert found["confidence"]["stuff"]["AP50"] == found["oracle"]["stuff"]["AP50"] == 50.0
    assert found["detection"]["stuff"]["AP50"] == 25.0


def test_output_that_does_not_fit(tmp_path):
    truth = truth_of([(SCENE, CLASSES)])
    path = write(tmp_path, truth, [(SCENE, {7: 7, 1: 1, 9: 9, 3: 2}, {})])
    other = Truth(truth.path, truth.images, CATEGORIES[:2], truth.annotations, "")
    with pytest.raises(UserError, match="category 7 is not in truth.json"):
        measure_panoptic(path, other, ONE)
    other = Truth(truth.path, [{**truth.images[0], "height": 5}], CATEGORIES, truth.annotations, "")
    with pytest.raises(UserError, match=r"image 1 of \(6, 8\) \[height, width\] is not in truth.json"):
        measure_panoptic(path, other, ONE)
    (png_folder(path) / "000000000001.png").unlink()
    with pytest.raises(UserError, match="000000000001.png: no such file"):
        measure_panoptic(path, truth, ONE)
    found = measure_panoptic(tmp_path / "panoptic_val.json", truth, ONE)
    assert found["available"] == 0 and "the method makes no panoptic output" in found["reason"]


@pytest.mark.parametrize("splits", [("train",), ("train", "val"), ("val",)])
def test_score_measures_it(workspace, splits):
    """The truth as a panoptic output is perfect; its three figures take the room of others in the headline."""
    write_json(layout.pseudo_labels("irnet", "val"), read_json(layout.TRUTH["val"]))
    for split in splits:
        write_perfect_output("irnet", split)
    main(workspace / "params.yaml")
    detail, headline = (read_json(layout.METRICS / f"{name}.json") for name in ("detail/score", "score"))
    for split in ("train", "val"):
        output = detail[split]["panoptic_output"]
        if split in splits:
            assert output["stuff"]["PQ"] == 100.0 and output["things"]["PQ"] > 90
            assert {*output["ranked"]} == {"score", "oracle"}
        else:
            assert output == {"available": 0, "reason": output["reason"]}
    name = "panoptic_val" if "val" in splits else "panoptic"
    assert {*headline} == {"labels", "labels_val", name}
    assert headline[name] == {"PQ": detail[splits[-1]]["panoptic_output"]["all"]["PQ"],
                              "PQ_things": detail[splits[-1]]["panoptic_output"]["things"]["PQ"], "PQ_stuff": 100.0}
    assert not {"AP25", "separated_mIoU"} & {*headline["labels"], *headline["labels_val"]}


def test_the_headline_keeps_its_length():
    """Three figures come in, four go out."""
    figures = {"voc": {"AP25": 1, "AP50": 2}, "coco": {"AP": 3}, "objects": {"mean_iou": 4, "recall50": 5},
               "separated": {"mean_iou": 6}, "semantic": {"mIoU": 7}}
    output = {"available": 1, "all": {"PQ": 1}, "things": {"PQ": 2}, "stuff": {"PQ": 3}}

    def count(**splits):
        return sum(len(value) for value in headline_of_labels(splits, Figures({"a": 1, "b": 2, "c": 3})).values())

    assert count(train=figures, val=figures) == 17
    assert count(train={**figures, "panoptic_output": output}, val={**figures, "panoptic_output": output}) == 16
