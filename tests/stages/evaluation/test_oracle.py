"""What the truth makes of locations: drawn scenes, and the stage with proposals that a method hands on."""

from __future__ import annotations

import numpy as np
import pytest

from stages.evaluation import evaluate, score
from stages.evaluation.inputs import read_truth
from stages.evaluation.oracle import Located, assign, best_proposals, locations, oracle_labels, true_masks
from stages.labels import rle
from stages.labels.figures import figures_path, write_figures
from stages.proposals.provider import RECORD, used_proposals
from stages.proposals.segments import from_rles
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json, write_npz
from stages.runtime.settings import RuntimeSettings
from tests.stages.evaluation.conftest import write_params
from tests.stages.evaluation.scenes import annotation, square

IMAGE = {"id": 7, "width": 12, "height": 10, "file_name": "7.png"}
RUNTIME = RuntimeSettings(workers=1)


def box(x, y, w, h):
    return square(10, 12, x, y, w, h)


def located(objects, points, categories, scores=None):
    return Located(IMAGE, [annotation(number, 7, category, mask) for number, (category, mask) in
                           enumerate(objects, start=1)],
                   np.array(points, float).reshape(-1, 2), np.array(categories, np.int64),
                   np.array(scores if scores is not None else [1.0] * len(points)))


def write_proposals(folder, image, masks):
    size = (image["height"], image["width"])
    scores = np.linspace(0.9, 0.1, len(masks))
    write_npz(folder / f"{layout.image_key(image)}.npz",
              **from_rles(size, [rle.encode(mask) for mask in masks], scores).arrays())


def test_a_location_stands_for_the_object_of_its_class_that_holds_it():
    objects = [(1, box(0, 0, 5, 5)), (2, box(6, 0, 4, 4)), (1, box(6, 6, 6, 4))]
    points = [[2, 2], [2, 2], [7.4, 1], [11.49, 9], [5, 5], [3, 3]]
    found = assign(located(objects, points, [1, 2, 2, 1, 1, 1], [0.2, 1, 1, 1, 1, 0.9]))
    # The second has another class, the fifth lies beside all; the first and the last have one object.
    assert found.tolist() == [0, -1, 1, 2, -1, 0]
    assert assign(located([], [[1, 1]], [1])).tolist() == [-1]
    assert assign(located(objects, [], [])).tolist() == []


def test_where_masks_overlap_as_many_objects_as_possible_are_found():
    # The first point lies in both objects, the second in the larger one alone: it gets that one.
    objects = [(1, box(0, 0, 8, 8)), (1, box(0, 0, 3, 3))]
    for points in ([[1, 1], [6, 6]], [[6, 6], [1, 1]]):
        assert sorted(assign(located(objects, points, [1, 1])).tolist()) == [0, 1]
    # Of two locations that could both have one object, the better scored has it alone; a duplicate has the smallest.
    objects = [(1, box(0, 0, 8, 8)), (1, box(0, 0, 3, 3)), (1, box(0, 0, 4, 4))]
    assert assign(located(objects, [[6, 6], [7, 7]], [1, 1], [0.1, 0.9])).tolist() == [0, 0]
    assert assign(located(objects, [[1, 1]] * 4, [1] * 4, [0.9, 0.8, 0.7, 0.1])).tolist()[3] == 1


def test_true_masks():
    objects = [(1, box(0, 0, 5, 5)), (2, box(6, 0, 4, 4))]
    first, false = true_masks(located(objects, [[4.4, 4], [11.5, 9.5]], [1, 1], [0.2, 0.4]))
    assert (rle.decode(first["segmentation"]) == box(0, 0, 5, 5)).all() and first["score"] == 1
    assert np.argwhere(rle.decode(false["segmentation"])).tolist() == [[9, 11]] and false["score"] == 0


def test_best_proposals(tmp_path):
    write_proposals(tmp_path, IMAGE, [box(0, 0, 12, 10), box(0, 0, 5, 4), box(1, 0, 5, 5), box(6, 0, 4, 5)])
    objects = [(1, box(0, 0, 5, 5)), (2, box(6, 0, 4, 4))]
    found = best_proposals(located(objects, [[2, 2], [7, 1], [0, 9]], [1, 2, 1]), tmp_path)
    assert (rle.decode(found[0]["segmentation"]) == box(0, 0, 5, 4)).all()
    assert found[0]["score"] == pytest.approx(2 * 20 / 45), "the Dice of 20 pixels in 20 and 25"
    assert (rle.decode(found[1]["segmentation"]) == box(6, 0, 4, 5)).all()
    assert rle.area(found[2]["segmentation"]) == 1 and found[2]["score"] == 0
    write_proposals(tmp_path, IMAGE, [])
    assert [(rle.area(item["segmentation"]), item["score"]) for item in
            best_proposals(located(objects, [[2, 2]], [1]), tmp_path)] == [(1, 0)]
    with pytest.raises(UserError, match="proposals of an image of 12 x 10 px, image 7 has 9 x 10"):
        best_proposals(Located({**IMAGE, "width": 9}, [], np.zeros((0, 2)), np.zeros(0), np.zeros(0)), tmp_path)


def test_every_object_located_at_itself_is_found(workspace):
    truth = read_truth(layout.TRUTH["val"])
    # An object within another of its class: the first pixel of the outer one is in the inner one, too.
    inner = annotation(900, truth.images[0]["id"], 2, square(60, 80, 5, 5, 4, 4))
    outer = annotation(901, truth.images[0]["id"], 2, square(60, 80, 5, 5, 9, 9))
    truth.annotations.extend([outer, inner])
    labels = oracle_labels("mask", locations(truth, None), None, RUNTIME)
    wanted = [item for item in truth.annotations if not item["iscrowd"] and item["category_id"] in truth.things]
    assert sorted((item["image_id"], item["category_id"], item["segmentation"]["counts"]) for item in labels) == \
        sorted((item["image_id"], item["category_id"], item["segmentation"]["counts"]) for item in wanted)


# The stage


@pytest.fixture
def made(workspace):
    """A method that hands on proposals of val, its labels of val start from points."""
    truth = read_json(layout.TRUTH["val"])
    objects = [item for item in truth["annotations"] if not item["iscrowd"] and item["category_id"] != 40]
    folder = workspace / "data/proposals"
    for image in truth["images"]:
        own = [rle.decode(item["segmentation"]) for item in objects if item["image_id"] == image["id"]]
        write_proposals(folder, image, [np.roll(mask, 1, 1) for mask in own])
    write_json(folder / RECORD, {"provider": "SharpMask", "trained_on_masks": True, "tuned_on_masks": True})

    def location(item):
        row, column = np.argwhere(rle.decode(item["segmentation"]))[0].tolist()
        return {**item, "point": [column, row], "score": 0.5}

    # All objects but the first are located, and one place that is none.
    labels = [location(item) for item in objects[1:]]
    labels.append({**labels[0], "id": 1000, "point": [79, 59], "category_id": 2,
                   "segmentation": rle.encode(square(60, 80, 79, 59, 1, 1))})
    write_json(layout.pseudo_labels("irnet", "val"), truth | {"annotations": labels})
    proposals = used_proposals(folder.relative_to(workspace), truth["images"])
    write_figures(figures_path("irnet"), {"count_error": 0.25}, details={"no_points": 2}, proposals=proposals)
    return workspace


def run(workspace, *rows):
    score.main(write_params(workspace, score={"oracle": list(rows)}))
    return read_json(layout.METRICS / "detail/score.json")


def test_rows_of_table_1(made, capsys):
    found = run(made, "proposal", "mask")
    assert set(found["oracle"]) == {"val", "objects"} and set(found["oracle"]["val"]) == {"proposal", "mask"}
    masks = {place: found["oracle"][place]["mask"] for place in ("val", "objects")}
    assert masks["objects"]["voc"]["AP75"] == masks["objects"]["coco"]["AP"] == 100
    assert masks["objects"]["objects"]["mean_iou"] == 100
    # The same at every threshold: the share that was located, class by class.
    classes = [row for row in masks["val"]["classes"].values() if "AP50" in row]
    assert [row["AP50"] for row in classes] == [row["recall50"] for row in classes]
    assert masks["val"]["voc"]["AP25"] == masks["val"]["voc"]["AP75"] < 100
    assert masks["val"]["objects"]["labels"] == found["val"]["objects"]["labels"]
    proposals = {place: found["oracle"][place]["proposal"] for place in ("val", "objects")}
    assert 0 < proposals["objects"]["objects"]["mean_iou"] < 100
    assert proposals["objects"]["voc"]["AP25"] >= proposals["val"]["voc"]["AP25"] > 0
    printed = capsys.readouterr().out
    assert "oracle: the best proposal in the place of what the method located on val" in printed
    assert "proposals by SharpMask, trained on masks" in printed


def test_nothing_is_read_that_was_not_asked_for(made):
    (made / "data/proposals/000000000010.npz").unlink()
    assert "oracle" not in run(made)
    assert set(run(made, "mask")["oracle"]["objects"]) == {"mask"}


def test_labels_without_points_are_no_locations(made):
    path = layout.pseudo_labels("irnet", "val")
    content = read_json(path)
    for item in content["annotations"]:
        item.pop("point")
    write_json(path, content)
    assert set(run(made, "proposal")["oracle"]) == {"objects"}
    path.unlink()
    assert set(run(made, "proposal")["oracle"]) == {"objects"}


def test_without_truth_there_is_no_oracle(made):
    truth = read_json(layout.TRUTH["val"])
    write_json(layout.TRUTH["val"], truth | {"annotations": [], "info": {"truth": "none", "reason": "tags only"}})
    assert "oracle" not in run(made, "proposal", "mask")


def test_other_proposals_are_refused(made):
    write_proposals(made / "data/proposals", read_json(layout.TRUTH["val"])["images"][0], [])
    with pytest.raises(UserError, match="these are not the proposals that the labels of irnet were made with"):
        run(made, "proposal")
    write_figures(figures_path("irnet"), {})
    with pytest.raises(UserError, match="needs a method that uses proposals, irnet uses none"):
        run(made, "proposal")


def test_every_metric_file_says_who_made_the_proposals(made):
    assert run(made)["proposals"] == {"provider": "SharpMask", "trained_on_masks": 1, "tuned_on_masks": 1}
    short = read_json(layout.METRICS / "score.json")
    assert short["proposals"] == {"provider": "SharpMask", "trained_on_masks": 1}
    assert short["method"] == {"count_error": 0.25}
    assert run(made)["method"] == {"count_error": 0.25, "no_points": 2}
    evaluate.main(made / "params.yaml")
    for path in ("evaluate.json", "detail/evaluate.json"):
        annotated = read_json(layout.METRICS / path)["annotation"]
        assert (annotated["proposals"], annotated["proposals_trained_on_masks"]) == ("SharpMask", 1)
    assert read_json(layout.METRICS / "detail/evaluate.json")["annotation"]["proposals_tuned_on_masks"] == 1


def test_what_a_method_says_of_its_proposals(made):
    images = read_json(layout.TRUTH["val"])["images"]
    record = made / "data/proposals" / RECORD
    before = used_proposals(made / "data/proposals", images)
    assert before["folder"].endswith("data/proposals")
    assert used_proposals(made / "data/proposals", images[::-1])["digest"] == before["digest"]
    assert used_proposals(made / "data/proposals", images[1:])["digest"] != before["digest"]
    write_json(record, {"provider": "SharpMask", "trained_on_masks": 1, "tuned_on_masks": True})
    with pytest.raises(UserError, match=r"provider.json: provider, trained_on_masks, tuned_on_masks were expected"):
        used_proposals(made / "data/proposals", images)
