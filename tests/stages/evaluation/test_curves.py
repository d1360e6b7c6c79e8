import xml.etree.ElementTree as ET

import numpy as np
import pytest

from stages.evaluation.curves import Curve, Line, draw, number, read_curves, svg, thin, ticks
from stages.runtime.errors import UserError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_read(tmp_path):
    write(tmp_path / "net/curves/plots/metrics/loss/mask.tsv", "step\tmask\n0\t2.5\n10\tnan\n20\t1.5\n")
    write(tmp_path / "net/curves/plots/metrics/rate.tsv", "timestamp\tstep\trate\n17\t5\t0.1\n")
    write(tmp_path / "net/curves/plots/metrics/empty.tsv", "step\tempty\n")
    write(tmp_path / "net/elsewhere/rate.tsv", "step\trate\n0\t1\n")
    curves = read_curves(tmp_path)
    assert [(curve.training, curve.name) for curve in curves] == [("net", "loss/mask"), ("net", "rate")]
    assert curves[0].steps.tolist() == [0, 20]
    assert curves[0].values.tolist() == [2.5, 1.5]
    assert curves[1].steps.tolist() == [5]
    assert curves[1].values.tolist() == [0.1]
    assert read_curves(tmp_path / "nowhere") == []


@pytest.mark.parametrize("content", [b"step\tloss\n1\t\xe9", b"step\tloss\n1\t" + b"9" * 200_000])
def test_what_is_no_table(tmp_path, content):
    path = tmp_path / "net/curves/plots/metrics/loss.tsv"
    write(path, "")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"loss\.tsv: cannot be read as a table of a training"):
        read_curves(tmp_path)


def test_what_dvclive_writes(tmp_path):
    dvclive = pytest.importorskip("dvclive")
    with dvclive.Live(dir=str(tmp_path / "a/curves"), save_dvc_exp=False, dvcyaml=None, report=None) as live:
        for step in range(3):
            live.step = 10 * step
            live.log_metric("train/loss", 1.0 / (1 + step), timestamp=True)
    curves = read_curves(tmp_path)
    assert [(curve.training, curve.name) for curve in curves] == [("a", "train/loss")]
    assert curves[0].steps.tolist() == [0, 10, 20]
    assert curves[0].values[0] == 1.0


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0], [0.0, 0.0], [-1e-8, 3e7], list(np.linspace(3, 1, 5000))])
def test_svg_is_well_formed_and_stays_small(values):
    steps = np.arange(len(values), dtype=float)
    text = svg(Curve("a<b", 'loss "x"', steps, np.array(values)))
    assert ET.fromstring(text).tag == "svg"
    assert len(text) < 6000
    assert "nan" not in text


def _heights(drawing, tag, kind):
    """y of a line's points, in pixels from the top."""
    (found,) = [item for item in ET.fromstring(drawing).iter(tag) if item.get("class") == kind]
    return [float(point.split(",")[1]) for point in found.get("points").split()]


def test_lines_over_each_other_share_their_axes():
    steps = np.array([0.0, 1.0, 2.0])
    lower, upper = Line(steps, np.array([0.0, 1.0, 2.0]), "k0"), Line(steps[1:], np.array([4.0, 3.0]), "k1")
    drawing = draw([lower, upper], "a & b", "training")
    first, second = _heights(drawing, "polyline", "line k0"), _heights(drawing, "polyline", "line k1")
    assert np.diff(first).tolist() == pytest.approx(2 * [second[0] - second[1]], abs=0.11), "a unit is as long in both"
    assert second[0] < first[2] < first[0], "4 above 2 above 0"
    assert ET.fromstring(drawing).get("aria-label") == "a & b"
    assert "training 2" in "".join(ET.fromstring(drawing).itertext())


def test_a_band_is_within_the_drawing():
    steps, values = np.array([0.0, 1.0]), np.array([5.0, 6.0])
    drawing = draw([Line(steps, values, "k2", values - 5, values + 4)], "", "step")
    band = _heights(drawing, "polygon", "band k2")
    line = _heights(drawing, "polyline", "line k2")
    assert len(band) == 4
    assert min(band) == 8.0, "the highest value is at the top"
    assert max(band) == 128.0, "the lowest at the bottom"
    assert band[0] > line[0] > band[3], "below and above the line"


def test_a_long_band_is_thinned_as_its_line_is():
    steps = np.arange(5000.0)
    drawing = draw([Line(steps, steps, "", steps - 1, steps + 1)], "", "step")
    assert len(_heights(drawing, "polygon", "band")) == 2 * len(_heights(drawing, "polyline", "line")) == 480


def test_thin_keeps_the_mean():
    steps, values = np.arange(1000.0), np.random.default_rng(0).random(1000)
    few, means = thin(steps, values, 100)
    assert len(few) == 100
    assert means.mean() == pytest.approx(values.mean())
    assert thin(steps, values, 1000)[0] is steps


def test_ticks():
    assert ticks(0.0, 1.6) == [0.0, 0.5, 1.0, 1.5]
    assert ticks(3.0, 3.0) == [3.0]
    assert [number(value) for value in (0.25, 1490.0, 90_000.0, 0.00012)] == ["0.25", "1490", "90k", "0.00012"]
