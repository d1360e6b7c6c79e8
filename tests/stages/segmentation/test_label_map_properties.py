"""Any semantic PNG that somebody brings: its classes, or one sentence."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages.evaluation.semantic import read_semantic
from stages.segmentation.labels import IGNORE, index_table, read_indices
from tests.fuzz.strategies import promised, small

MODES = ["L", "P", "1", "I;16", "I", "F", "RGB", "LA", "RGBA"]


@small(120)
@given(st.data())
def test_classes_or_a_sentence(tmp_path, data):
    path, size = tmp_path / "map.png", (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
    values = np.array(data.draw(st.lists(st.sampled_from([0, 4, 9, 255, 254, 65535, 70_000]),
                                         min_size=size[0] * size[1],
                                         max_size=size[0] * size[1]))).reshape(size)
    mode = data.draw(st.sampled_from(MODES))
    image = Image.fromarray(np.minimum(values, 65535).astype(np.uint16)) if mode == "I;16" else Image.fromarray(
        values.astype(np.int32)).convert(mode) if mode in ("I", "F") else Image.fromarray(
        np.minimum(values, 255).astype(np.uint8)).convert(mode)
    image.save(path, format="TIFF" if mode in ("F", "I") else "PNG")
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    found = promised(lambda: read_indices(path, (4, 4), index_table([4, 9])))
    if found is not None:
        with Image.open(path) as picture:
            shown = np.array(picture).astype(np.int64)
        assert found.shape == shown.shape == (4, 4)
        expected = np.select([shown == 0, shown == 4, shown == 9], [0, 1, 2], IGNORE)
        assert (found == expected).all() and np.isin(shown, [0, 4, 9, 255, 65535]).all()
    measured = promised(lambda: read_semantic(path, 4, 4, {4: 1, 9: 2}))
    assert measured is None or (measured.shape == (4, 4) and np.isin(measured, [-1, 0, 1, 2]).all())
