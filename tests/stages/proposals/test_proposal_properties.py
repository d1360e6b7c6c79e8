"""Any file of another program's proposals: its masks, best first, or one sentence."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from stages.proposals import from_file
from tests.fuzz import oracles, samples
from tests.fuzz.strategies import promised, small, spoilt

IMAGE = {"id": 11, "height": samples.HEIGHT, "width": samples.WIDTH}
RUNS = {"size": [samples.HEIGHT, samples.WIDTH], "counts": [20, 7, 93]}
ROWS = [{"image_id": 11, "segmentation": RUNS, "score": 0.5},
        {"image_id": 11, "segmentation": [[1, 1, 6, 1, 6, 6]], "score": 0.75}, {"image_id": 12, "score": 1,
                                                                               "segmentation": []}]


@small(120)
@given(st.one_of(spoilt(ROWS).map(json.dumps), st.text(st.sampled_from('[]{},:"0123NaNe-+.  \n'), max_size=20)))
@example("[" * 100_000)
@example('[{"image_id": ' + "9" * 5000 + "}]")
@example('[{"image_id": 11, "image_id": 12, "segmentation": [], "score": 1}]')
@example('[{"image_id": 11, "segmentation": [], "score": NaN}]')
@example('[{"image_id": 11, "segmentation": [], "score": 1' + "0" * 400 + "}]")
def test_masks_or_a_sentence(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)

    def read():
        places, other = from_file.find_entries([path], {11})
        return from_file.read_image(IMAGE, places.get(11, []), 5)[0], other

    found = promised(read)
    if found is None:
        return
    proposals, other = found
    rows = oracles.strict_json(path)
    own = sorted((row for row in rows if row["image_id"] == 11), key=lambda row: -row["score"])
    assert len(rows) - len(own) == other
    masks = dict.fromkeys(mask.tobytes() for row in own if (mask := oracles.mask_of(
        row["segmentation"], samples.HEIGHT, samples.WIDTH)).any())
    assert [proposals.mask(place).tobytes() for place in range(len(proposals))] == list(masks)
