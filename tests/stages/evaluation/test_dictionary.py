"""The headline is short, and docs/metrics.md explains every key of a run that has everything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.evaluation import evaluate, score
from stages.labels import rle
from stages.labels.figures import MOST, figures_path, write_figures
from stages.labels.map_list import LabelMap, write_map_list
from stages.proposals.provider import RECORD, used_proposals
from stages.proposals.segments import from_rles
from stages.runtime import layout
from stages.runtime.files import read_json, write_json, write_npz
from tests.stages.evaluation.conftest import write_params, write_perfect_output
from tests.stages.evaluation.scenes import annotation, square

ROOT = Path(__file__).resolve().parents[3]
DICTIONARY = ROOT / "docs/metrics.md"
SIZES = {"medium_from": 50.0, "large_from": 300.0}


def test_the_dictionary_has_what_git_has():
    for name in ("score", "evaluate"):
        _assert_explained("Headline", read_json(ROOT / f"metrics/{name}.json"))
        _assert_explained("Detail", read_json(ROOT / f"metrics/detail/{name}.json"))
    for path in ROOT.glob("metrics/plots/*_by_class.json"):
        _assert_explained("Bars per class", read_json(path)[0])


def test_a_run_with_everything(everything):
    headline = {name: read_json(layout.METRICS / f"{name}.json") for name in ("score", "evaluate")}
    numbers = [path for content in headline.values() for path, value in _leaves(content)
               if isinstance(value, (int, float))]
    assert len(numbers) == len(set(numbers)) == 25
    assert all(path.count(".") == 1 for path in numbers), "group.name, as people say it"
    assert {path for path in numbers if path.startswith("labels_val.")} == {
        path.replace("labels.", "labels_val.") for path in numbers if path.startswith("labels.")}
    detail = [read_json(layout.METRICS / f"detail/{name}.json") for name in ("score", "evaluate")]
    short = [*headline.values()]
    for split in ("train", "val"):  # a panoptic output changes the headline
        write_perfect_output("irnet", split)
        score.main(everything / "params.yaml")
        short.append(read_json(layout.METRICS / "score.json"))
        detail.append(read_json(layout.METRICS / "detail/score.json"))
        assert len([value for _, value in _leaves(short[-1]) if isinstance(value, (int, float))]) <= 17
    for content in short:
        _assert_explained("Headline", content)
    for content in detail:
        _assert_explained("Detail", content)
    for row in read_json(layout.METRICS / "plots/rounds.json"):
        _assert_explained("Labels round by round", row)

    # And the other way round: nothing is explained that is not there.
    found = {_plain(path) for content in short for path, _ in _leaves(content)}
    unused = [key for key in _keys("Headline") if "." in key and not any(_matches(key, path) for path in found)]
    found = {_plain(path) for content in detail for path, _ in _leaves(content)}
    unused += [key for key in _keys("Detail") if "reason" not in key
               and not any(_matches(key, path) for path in found)]
    assert not unused


def test_no_truth_and_no_reference_are_texts(workspace):
    for split in ("train", "val"):
        truth = read_json(layout.TRUTH[split])
        write_json(layout.TRUTH[split], truth | {"annotations": [], "info": {"truth": "none", "reason": "tags only"}})
    score.main(workspace / "params.yaml")
    evaluate.main(workspace / "params.yaml")
    for name in ("score", "evaluate"):
        content = read_json(layout.METRICS / f"{name}.json")
        _assert_explained("Headline", content)
        _assert_explained("Detail", read_json(layout.METRICS / f"detail/{name}.json"))
        texts = [value for _, value in _leaves(content) if isinstance(value, str)]
        assert texts == ["no truth: tags only"]


def test_the_test_notices_what_is_missing():
    with pytest.raises(AssertionError, match="nonsense"):
        _assert_explained("Headline", {"labels": {"AP50": 1.0, "nonsense": 2.0}})
    with pytest.raises(AssertionError, match="classes.disc.odd"):
        _assert_explained("Detail", {"train": {"classes": {"disc": {"odd": 1.0}}}})


@pytest.fixture
def everything(workspace: Path) -> Path:
    """A run with labels of val, from points too, stuff, semantic maps, a round of them, points, a federated truth, a
    reference, own figures, proposals and their oracle."""
    data = layout.method_data("irnet")
    settings = {**SIZES, "coverage": True}
    params = {"score": {**settings, "oracle": ["proposal", "mask"]}, "evaluate": settings,
              "annotations": {"kinds": ["tags", "boxes"]}}
    for split in ("train", "val"):
        truth = read_json(layout.TRUTH[split])
        for image in truth["images"]:
            image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        for category, frequency in zip(truth["categories"], "rcfc", strict=True):
            category["frequency"] = frequency
        separated = square(60, 80, 1, 50, 20, 4) | square(60, 80, 40, 50, 20, 4)
        truth["annotations"].append(annotation(len(truth["annotations"]) + 1, truth["images"][0]["id"], 2, separated))
        write_json(layout.TRUTH[split], truth)
        path = layout.pseudo_labels("irnet") if split == "train" else data / "pseudo_labels_val.json"
        labels = read_json(path) if split == "train" else truth
        stuff = truth["annotations"][-2] | {"id": len(labels["annotations"]) + 1, "score": 0.9}
        write_json(path, labels | {"annotations": [*labels["annotations"], stuff]})
        for image in truth["images"]:
            (data / "semantic").mkdir(exist_ok=True)
            Image.fromarray(np.full((60, 80), 40, np.uint8)).save(data / f"semantic/{layout.image_key(image)}.png")
        thing = truth["annotations"][0]
        x, y, w, h = thing["bbox"]
        labels_of_cells = np.array([[[2, 1, -1, -2]] * 4], np.int8)
        write_npz(data / f"points/{split}/{thing['image_id']:012d}.npz", labels=labels_of_cells,
                  windows=np.array([[0, 0, 80, 60]], np.int32), boxes=np.array([[x, y, x + w, y + h]], np.float64),
                  categories=np.array([thing["category_id"]]))
        write_proposals(workspace / "data/proposals", truth["images"])
    write_json(data / "pseudo_labels_val_points.json", truth)
    write_perfect_output("irnet", "train", "instances.json")
    maps = write_map_list(layout.label_maps("irnet"), [LabelMap("round 0", "semantic", "instances.json", 0)])
    proposals = used_proposals(Path("data/proposals"), truth["images"])
    write_figures(figures_path("irnet"), {f"own_{number}": float(number) for number in range(MOST - 2)}, maps,
                  details={"further": 1.0}, proposals=proposals)
    layout.predictions("masks").parent.mkdir(parents=True)
    objects = read_json(layout.TRUTH["val"])["annotations"]
    write_json(layout.predictions("masks"), [item | {"score": 1.0} for item in objects])
    write_json(layout.predictions("irnet"), [item | {"score": 0.9} for item in objects])
    evaluate.main(write_params(workspace, method="masks", **params))
    score.main(write_params(workspace, **params))
    evaluate.main(workspace / "params.yaml")
    return workspace


def write_proposals(folder: Path, images: list[dict[str, Any]]) -> None:
    for image in images:
        found = from_rles((60, 80), [rle.encode(square(60, 80, 10, 10, 20, 20))], [0.5])
        write_npz(folder / f"{layout.image_key(image)}.npz", **found.arrays())
    write_json(folder / RECORD, {"provider": "MCG", "trained_on_masks": True, "tuned_on_masks": True})


def _keys(section: str) -> list[str]:
    """The keys in the first column of a section's table."""
    text = DICTIONARY.read_text(encoding="utf-8")
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    rows = [line.split("|") for line in body.splitlines() if line.startswith("| `")]
    assert all(len(row) == 6 and row[2].strip() and (row[3].strip() or row[4].strip()) for row in rows)
    return [key for row in rows for key in re.findall(r"`([^`]+)`", row[1])]


def _matches(key: str, path: str) -> bool:
    """Whether a key such as `classes.<class>.AP50` stands for a path; a class's name may hold any sign."""
    pattern = "".join(".+" if part.startswith("<") else re.escape(part) for part in re.split(r"(<\w+>)", key))
    return re.fullmatch(pattern, path) is not None


def _leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(path: str) -> str:
    """Without what the dictionary says once for all files of labels."""
    detail = re.sub(r"^(train|val_points|val|oracle\.(val|objects)\.(proposal|mask))\.", "", path)
    return re.sub(r"^labels_val\.", "labels.", detail)


def _assert_explained(section: str, content: dict[str, Any]) -> None:
    keys = _keys(section)
    missing = [path for path, _ in _leaves(content) if not any(_matches(key, _plain(path)) for key in keys)]
    assert not missing, f"docs/metrics.md, {section}, lacks {', '.join(missing)}"
