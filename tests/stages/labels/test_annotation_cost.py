import pytest

from stages.labels.annotation_cost import affordable, annotation_cost, supervision
from stages.labels.settings import AnnotationSeconds

SECONDS = AnnotationSeconds()


@pytest.mark.parametrize(("kinds", "share", "expected", "kind"), [
    (["tags"], 1.0, 20.0, "tags"),
    (["tags", "points"], 1.0, 23.3, "points"),
    (["boxes", "tags"], 1.0, 38.1, "boxes"),
    (["extreme_points"], 1.0, 38.1, "extreme_points"),
    (["masks"], 1.0, 239.7, "masks"),
    (["tags", "masks"], 1.0, 239.7, "masks"),
    (["tags", "masks"], 0.1, 0.9 * 20.0 + 0.1 * 239.7, "tags"),
    (["points", "masks"], 0.0, 23.3, "points"),
])
def test_annotation_cost(kinds, share, expected, kind):
    found = annotation_cost(kinds, share, SECONDS)
    assert found["seconds_per_image"] == pytest.approx(expected, abs=1e-3)
    assert found["kind"] == kind
    assert found["source"]


def test_what_a_method_was_given():
    annotations = {"kinds": ["tags", "masks"], "masked_images": 0.25}
    assert supervision("irnet", "auto", annotations) == (["tags", "masks"], 0.25)
    assert supervision("irnet", "points", annotations) == (["points"], 1.0)
    assert supervision("masks", "auto", {"kinds": ["tags"]}) == (["masks"], 1.0)
    assert supervision("irnet", "auto", {}) == (["tags"], 1.0)


@pytest.mark.parametrize(("seconds", "images"), [(20.0, 1464), (22.1, 1325), (239.7, 122), (29280, 1), (60000, 0)])
def test_images_that_the_budget_of_table_2_affords(seconds, images):
    """WISE section 4.3.2: 20.0 x 1,464 s."""
    assert affordable(29280, seconds) == images


def test_images_that_cost_nothing():
    with pytest.raises(ValueError, match="an image costs nothing"):
        affordable(100, 0)
