"""Peaks of maps by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from stages.cues.peaks import find_peaks, local_maxima


def brute_maxima(values, window):
    radius = window // 2
    height, width = values.shape
    found = np.ones(values.shape, bool)
    for y in range(height):
        for x in range(width):
            for v in range(max(0, y - radius), min(height, y + radius + 1)):
                for u in range(max(0, x - radius), min(width, x + radius + 1)):
                    other, own = values[v, u], values[y, x]
                    if other > own or (other == own and (v, u) < (y, x)):
                        found[y, x] = False
    return found


def brute_peaks(values, window, threshold, smoothing, most):
    height, width = values.shape
    smoothed = np.zeros(values.shape)
    reach = smoothing // 2
    for y in range(height):
        for x in range(width):
            around = [values[min(max(v, 0), height - 1), min(max(u, 0), width - 1)]
                      for v in range(y - reach, y + reach + 1) for u in range(x - reach, x + reach + 1)]
            smoothed[y, x] = np.mean(around)
    maxima = brute_maxima(np.round(smoothed, 9), window)
    found = [(-smoothed[y, x], y, x) for y, x in np.argwhere(maxima) if smoothed[y, x] > threshold]
    return sorted(found)[:most]


@pytest.mark.parametrize("window", [1, 3, 5, 15, 41])
@pytest.mark.parametrize("levels", [3, 1000])
def test_local_maxima_by_brute_force(window, levels):
    for seed, size in enumerate([(12, 17), (1, 9), (9, 1), (1, 1)]):
        values = np.random.default_rng(seed).integers(0, levels, size).astype(float)
        assert np.array_equal(local_maxima(values, window), brute_maxima(values, window))


@pytest.mark.parametrize(("smoothing", "window", "threshold", "most"), [
    (3, 15, 0.5, 25), (1, 3, 0.2, None), (3, 5, 0.45, 3), (5, 7, 0.0, 1), (3, 3, 2.0, 25)])
def test_peaks_by_brute_force(smoothing, window, threshold, most):
    for seed in range(3):
        values = np.random.default_rng(seed).random((20, 31))
        peaks, heights = find_peaks(values, window=window, threshold=threshold, smoothing=smoothing, most=most)
        wanted = brute_peaks(values, window, threshold, smoothing, most)
        assert [tuple(peak) for peak in peaks] == [(y, x) for _, y, x in wanted]
        assert np.allclose(heights, [-height for height, _, _ in wanted])
        assert peaks.shape == (len(wanted), 2) and peaks.dtype == np.int64


def test_hand_drawn():
    values = np.zeros((9, 9))
    values[1, 1], values[1, 7], values[7, 4] = 0.9, 0.7, 0.8
    peaks, heights = find_peaks(values, window=3, threshold=0.5, smoothing=1)
    assert peaks.tolist() == [[1, 1], [7, 4], [1, 7]]
    assert heights.tolist() == [0.9, 0.8, 0.7]
    # A window over the whole map leaves the highest; smoothing takes a ninth of each.
    assert find_peaks(values, window=17, threshold=0.5, smoothing=1)[0].tolist() == [[1, 1]]
    assert len(find_peaks(values, window=3, threshold=0.5)[0]) == 0
    # Inside, the mean of 3 x 3 makes a plateau of nine pixels, which is one peak.
    assert find_peaks(values, window=3, threshold=0.09)[0].tolist() == [[0, 0]]


def test_the_threshold_is_exceeded_and_not_met():
    values = np.array([[0.0, 0.5, 0.0]])
    assert len(find_peaks(values, window=3, threshold=0.5, smoothing=1)[0]) == 0
    assert len(find_peaks(values, window=3, threshold=0.49, smoothing=1)[0]) == 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_maps_have_one_peak_or_none(value):
    peaks, _ = find_peaks(np.full((30, 40), value), window=15, threshold=0.5)
    assert peaks.tolist() == ([[0, 0]] if value else [])


def test_empty_map():
    peaks, heights = find_peaks(np.zeros((0, 5)), window=15, threshold=0.5)
    assert peaks.shape == (0, 2) and heights.shape == (0,)
