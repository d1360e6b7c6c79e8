import numpy as np
import pytest

from stages.labels.drawing import (
    category_colour,
    draw_box,
    draw_point,
    enlarge,
    enlarge_mask,
    faded,
    flow_colours,
    heatmap,
    overlay_categories,
    overlay_masks,
)

GREY = np.full((40, 60, 3), 128, np.uint8)


def block(y: int, x: int, size: int = 12) -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[y:y + size, x:x + size] = True
    return mask


def test_category_colours_differ():
    colours = [category_colour(number) for number in range(-1, 24)]
    assert len(set(colours)) == 25
    assert colours[0] == (0, 0, 0)
    assert all(0 <= part <= 255 for colour in colours for part in colour)


def test_overlay_tints_inside_only_and_leaves_the_image_alone():
    image = GREY.copy()
    picture = overlay_masks(image, [block(10, 10)], [3], opacity=0.5)
    np.testing.assert_array_equal(image, GREY)
    np.testing.assert_allclose(picture[16, 16], (128 + np.array(category_colour(3))) / 2, atol=1)
    np.testing.assert_array_equal(picture[30, 40], GREY[30, 40])
    assert picture.dtype == np.uint8
    assert picture.shape == GREY.shape


def test_first_mask_is_on_top():
    picture = overlay_masks(GREY, [block(10, 10), block(10, 10)], [3, 4], opacity=1.0)
    np.testing.assert_array_equal(picture[16, 16], category_colour(3))


@pytest.mark.parametrize("masks", [[], np.zeros((0, 40, 60), bool), [np.zeros((40, 60), bool)]])
def test_nothing_to_draw(masks):
    np.testing.assert_array_equal(overlay_masks(GREY, masks), GREY)


def test_one_pixel_and_border_objects():
    mask = np.zeros((40, 60), bool)
    mask[0, 59] = True
    assert (overlay_masks(GREY, [mask])[0, 59] != GREY[0, 59]).any()


def test_semantic_overlay():
    labels = np.zeros((40, 60), int)
    labels[:5], labels[5:10] = 7, 255
    picture = overlay_categories(GREY, labels, opacity=1.0)
    np.testing.assert_array_equal(picture[0, 0], category_colour(7))
    np.testing.assert_array_equal(picture[7, 0], (150, 150, 150))
    np.testing.assert_array_equal(picture[20, 0], GREY[20, 0])


def test_heatmap():
    values = np.array([[0.0, 0.5, 1.0, 2.0, np.nan]])
    colours = heatmap(values)
    brightness = colours.astype(int).sum(axis=2)[0]
    assert brightness[0] < brightness[1] < brightness[2] == brightness[3]
    assert brightness[4] == brightness[0]
    assert heatmap(np.ones((5, 6)), GREY).shape == GREY.shape
    np.testing.assert_array_equal(heatmap(values, low=-1, high=1)[0, 2], heatmap(values)[0, 2])
    with pytest.raises(ValueError, match="above low"):
        heatmap(values, low=1, high=1)


def test_flow_colours():
    field = np.zeros((2, 1, 5))
    field[:, 0, 1] = 0, 4   # right
    field[:, 0, 2] = 0, 2   # right, half as far
    field[:, 0, 3] = 0, -4  # left
    field[:, 0, 4] = 4, 0   # down
    colours = flow_colours(field)[0]
    assert colours[0].tolist() == [255, 255, 255]
    assert colours[1].tolist() == [255, 0, 0]
    assert colours[2].tolist() == [255, 128, 128]
    assert colours[3].tolist() == [0, 255, 255]
    np.testing.assert_allclose(colours[4], [128, 255, 0], atol=1)
    assert (flow_colours(np.zeros((2, 3, 3))) == 255).all()
    assert flow_colours(field, longest=8)[0, 1].tolist() == [255, 128, 128]


def test_points_and_boxes():
    picture = GREY.copy()
    draw_point(picture, (20, 10), (255, 0, 0))
    assert picture[10, 20].tolist() == [255, 0, 0]
    picture = GREY.copy()
    draw_box(picture, [5, 6, 10, 8], (255, 0, 0))
    assert picture[6, 5].tolist() == picture[13, 14].tolist() == [255, 0, 0]
    assert picture[10, 10].tolist() == [128, 128, 128]
    draw_box(picture, [0, 0, 1, 1], (0, 255, 0))
    assert picture[0, 0].tolist() == [0, 255, 0]


def test_scaling():
    assert enlarge(GREY, 120).shape == (80, 120, 3)
    assert enlarge(GREY, 30).shape == (20, 30, 3)
    assert enlarge(np.zeros((1, 900, 3), np.uint8), 100).shape == (1, 100, 3)
    assert enlarge(np.zeros((1600, 4, 3), np.uint8), 320).shape == (1200, 3, 3)
    assert enlarge(np.zeros((70_000, 1, 3), np.uint8), 320).shape == (1280, 1, 3)
    mask = enlarge_mask(block(10, 10), (80, 120))
    assert mask.sum() == 4 * 144
    assert mask[20:44, 20:44].all()


def test_faded():
    red = np.full((2, 2, 3), (200, 20, 20), np.uint8)
    np.testing.assert_array_equal(faded(red, 0.0), np.full((2, 2, 3), 80))
    np.testing.assert_array_equal(faded(red, 1.0), red)
