"""The benchmark's references say what the proposals say."""

import numpy as np

from benchmarks import proposals


def test_references_agree(monkeypatch):
    monkeypatch.setitem(proposals.SETTINGS, "limit", 150)
    for ours, reference in ((proposals.ours, proposals.plain), (proposals.asked, proposals.decoded)):
        assert np.allclose(ours(60, 80)(), reference(60, 80)())
