"""Any file of detections or labels, and any label map: figures of it, or one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluation.inputs import read_labels, read_predictions, read_truth
from stages.evaluation.matching import match
from stages.labels.panoptic import png_folder, read_panoptic
from stages.labels.segments import read_segments
from stages.runtime import layout
from tests.fuzz import oracles, samples
from tests.fuzz.strategies import promised, small, spoilt


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    samples.run(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("path", "split", "read"), [
    (layout.predictions("irnet"), "val", read_predictions), (layout.pseudo_labels("irnet"), "train", read_labels)])
def test_detections_and_labels(desk, path, split, read):
    truth, content = read_truth(layout.TRUTH[split]), json.loads(path.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth.images}

    @small(60)
    @given(spoilt(content))
    def check(changed):
        path.write_text(json.dumps(changed))
        found = promised(lambda: read(path, truth))
        if found is not None:
            masks = [oracles.mask_of(row["segmentation"], *sizes[row["image_id"]]) for row in found]
            things = [row for row in truth.annotations if row["category_id"] in truth.things]
            result = match(things, found)
            assert np.isfinite(result.score).all() and len(result.score) == len(masks)

    check()


def test_truth(desk):
    path = layout.TRUTH["train"]
    content = json.loads(path.read_text())

    @small(60)
    @given(spoilt(content))
    def check(changed):
        path.write_text(json.dumps(changed))
        found = promised(lambda: read_truth(path))
        if found is not None:
            sizes = {image["id"]: (image["height"], image["width"]) for image in found.images}
            for row in found.annotations:
                oracles.mask_of(row["segmentation"], *sizes[row["image_id"]])

    check()


def test_panoptic_output(desk):
    path = layout.panoptic("irnet")
    content = json.loads(path.read_text())
    whole = (png_folder(path) / content["annotations"][0]["file_name"]).read_bytes()

    @small(60)
    @given(spoilt(content), st.data())
    def check(changed, data):
        path.write_text(json.dumps(changed))
        found = promised(lambda: read_panoptic(path))
        for item in found["annotations"] if found else ():
            image = next(image for image in found["images"] if image["id"] == item["image_id"])
            picture = bytearray(whole)
            picture[data.draw(st.integers(0, len(picture) - 1))] ^= data.draw(st.integers(0, 255))
            (desk / "map.png").write_bytes(picture)
            for file in (desk / "map.png", png_folder(path) / item["file_name"]):
                promised(lambda file=file, image=image, item=item: read_segments(
                    file, (image["height"], image["width"]), item["segments_info"]))

    check()
