"""What later stages read: masks, proposals, labels, predictions, label maps, weights and intermediates."""

from __future__ import annotations

import html
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from stages.evaluation import evaluate, report, score
from stages.labels import rle
from stages.labels.coco import read_coco
from stages.proposals import propose
from stages.proposals.segments import read_proposals
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.weights import load_weights, save_weights
from stages.segmentation.labels import index_table, read_indices, write_semantic_png
from tests.fuzz import oracles, samples, spoilers
from tests.fuzz.kind import Kind
from tests.fuzz.mutations import odd_value, spoil_bytes, spoil_file, spoil_segmentation, spoil_tree
from tests.fuzz.oracles import ask
from tests.stages.evaluation.conftest import PARAMS

# Masks

def _build_masks(case: Path) -> None:
    (case / "user/mask.json").write_text(json.dumps([[[2, 1, 9, 1, 9, 6, 2, 6]]]))


def _run_masks(random: Random, case: Path) -> list[Any]:
    """Many masks per case: each is a call or two."""
    accepted = []
    for _ in range(40):
        height, width = random.choice([(10, 12), (1, 1), (4, 4), (60, 30), (1, 500)])
        mask = np.random.default_rng(random.randrange(2**32)).random((height, width)) < random.random()
        whole: Any = random.choice([rle.encode(mask), [[0, 0, width, 0, width, height]],
                                    {"size": [height, width], "counts": rle.unpack_counts(rle.encode(mask)["counts"])}])
        segmentation = spoil_segmentation(random, whole, height, width)
        try:
            accepted.append((segmentation, height, width, rle.from_segmentation(segmentation, height, width)))
        except ValueError as error:
            ask(str(error), "refused without a word")
        if rle.problem(segmentation, height, width) is None:
            accepted.append((segmentation, height, width, segmentation))
    if not accepted:
        raise UserError("user/mask.json: no mask of them was accepted")
    return accepted


def _check_masks(case: Path, accepted: list[Any]) -> None:
    for given, height, width, found in accepted:
        mask = oracles.mask_of(given, height, width)
        ask((rle.decode(found) == mask).all(), f"{given!r:.200} is decoded as another mask")
        ask(rle.problem(found, height, width) is None, f"{given!r:.200} is accepted and then is none")
        ask(rle.area(found) == mask.sum() and rle.bbox(found) == oracles.box_of(mask), f"{given!r:.200}: area or box")
        other = np.zeros((height, width), bool)
        other[: (height + 1) // 2] = True
        joined = rle.union([found, rle.encode(other)])
        ask((oracles.mask_of(joined, height, width) == (mask | other)).all(), f"{given!r:.200}: a wrong union")
        both = float(rle.coco_mask.iou([found], [dict(found)], [0])[0, 0]) if mask.any() else 1.0
        ask(both == 1.0, f"{given!r:.200}: IoU {both} with itself")


# Proposals

def _spoil_proposals(random: Random, case: Path) -> str:
    if random.random() < 0.1:
        path = case / "desk/results.json"
        rows = json.loads(path.read_text())
        path.write_text(json.dumps(rows, indent=random.choice([None, 1])) + random.choice(["", " ", "\n\n", "x", "[]"]))
        return "another layout"
    return spoilers.spoil_json(random, case / "desk/results.json", 0.4)


def _run_proposals(random: Random, case: Path) -> int:
    limit = random.choice([1, 2, 1000])
    Path("params.yaml").write_text(yaml.safe_dump({"runtime": {"workers": 1}, "proposals": {
        "provider": "file", "source": "results.json", "limit": limit,
        "file": {"name": "SharpMask", "trained_on_masks": True, "missing": random.choice(["error", "none"])}}}))
    propose.main(Path("params.yaml"))
    return limit


def _check_proposals(case: Path, limit: int) -> None:
    desk = case / "desk"
    rows = oracles.strict_json(desk / "results.json")
    record = oracles.strict_json(desk / "data/proposals/provider.json")
    images = [image for split in ("train", "val")
              for image in oracles.strict_json(desk / f"data/annotations/{split}_weak.json")["images"]]
    ask(record["other_images"] == sum(row["image_id"] not in {image["id"] for image in images} for row in rows),
        "proposals of other images")
    kept = 0
    for image in images:
        found = read_proposals(desk / "data/proposals", image)
        expected: dict[bytes, float] = {}
        for row in sorted((row for row in rows if row["image_id"] == image["id"]), key=lambda row: -row["score"]):
            if len(expected) == limit:
                break
            mask = oracles.mask_of(row["segmentation"], image["height"], image["width"])
            if mask.any():
                expected.setdefault(mask.tobytes(), row["score"])
        kept += len(found)
        ask([found.mask(place).tobytes() for place in range(len(found))] == list(expected), f"{image['id']}: masks")
        ask(np.allclose(found.scores, np.float32(list(expected.values()))), f"{image['id']}: scores")
        ask(found.areas.tolist() == [int(np.frombuffer(mask, bool).sum()) for mask in expected], "areas")
    ask(record["proposals"] == kept, "provider.json counts other proposals")


# score and evaluate

def _build_run(case: Path) -> None:
    samples.run(case / "desk")
    (case / "desk/params.yaml").write_text(yaml.safe_dump(PARAMS))
    folder, panels = case / "desk/data/irnet/gallery", []
    for split in ("train", "val"):
        for image in json.loads((case / "desk" / layout.WEAK[split]).read_text())["images"]:
            name = f"{split}_{layout.image_key(image)}.png"
            samples.photograph(folder / name, image["id"], (20, 24))
            panels.append({"image_id": image["id"], "title": "CAM", "picture": name, "split": split, "note": "n"})
    (folder / "panels.json").write_text(json.dumps(panels))
    curves = case / "desk/models/irnet/classifier/curves/plots/metrics/loss.tsv"
    curves.parent.mkdir(parents=True)
    curves.write_text("step\tloss\n" + "".join(f"{step}\t{2 / step}\n" for step in range(1, 30)))


def _spoil_run(random: Random, case: Path, names: tuple[str, ...]) -> str:
    path = case / "desk" / random.choice(names)
    if path.suffix == ".tsv":
        return spoilers.spoil_text(random, path)
    if path.is_dir() and "gallery" in path.parts:
        return spoilers.spoil_picture(random, spoilers.pick(random, path, ".png"))
    if path.is_dir():
        return spoilers.spoil_labels(random, spoilers.pick(random, path))
    return spoilers.spoil_json(random, path, 0.4)


LABELS = str(layout.pseudo_labels("irnet"))
PREDICTIONS = str(layout.predictions("irnet"))
_SCORED = (LABELS, LABELS, LABELS, str(layout.TRUTH["train"]), "data/irnet/panoptic.json", "data/irnet/panoptic",
           "data/irnet/figures.json")
_EVALUATED = (PREDICTIONS, PREDICTIONS, str(layout.TRUTH["val"]), str(layout.WEAK["train"]), "data/irnet/figures.json")

_REPORTED = ("data/irnet/gallery/panels.json", "data/irnet/gallery", LABELS, PREDICTIONS, str(layout.TRUTH["val"]),
             str(layout.WEAK["train"]), "data/irnet/figures.json",
             "models/irnet/classifier/curves/plots/metrics/loss.tsv")


def _check_report(case: Path, result: None) -> None:
    """A whole page without scripts, that shows every image of train, with names as text."""
    page = (case / "desk/metrics/report/index.html").read_text(encoding="utf-8")
    ask(page.rstrip().endswith("</html>") and "<script" not in page, "no whole page")
    weak = oracles.strict_json(case / f"desk/{layout.WEAK['train']}")
    for image in weak["images"]:
        ask(html.escape(image["file_name"], quote=False) in html.unescape(page).replace("&", "&amp;").replace(
            "<", "&lt;").replace(">", "&gt;"), f"{image['file_name']} is not shown")


def _check_metrics(case: Path, stage: str, part: str, found: Path) -> None:
    """The metrics can be read again, hold finite numbers, and the mean AP at IoU .5 is that of a plain computation."""
    metrics = oracles.strict_json(case / f"desk/metrics/detail/{stage}.json")
    oracles.finite(metrics)
    oracles.finite(oracles.strict_json(case / f"desk/metrics/{stage}.json"))
    truth = oracles.strict_json(case / "desk" / layout.TRUTH[part])
    content = oracles.strict_json(case / "desk" / found)
    rows = content["annotations"] if isinstance(content, dict) else content
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for row in rows:
        oracles.mask_of(row["segmentation"], *sizes[row["image_id"]])
    figures = metrics.get(part, metrics) if stage == "score" else metrics
    if metrics["available"] and "objects" in figures:
        things = {category["id"] for category in truth["categories"] if category.get("isthing", 1)}
        single = [row for row in rows if row["category_id"] in things and not row.get("iscrowd", 0)]
        best = _mean_best_iou(truth, [row for row in single if row["score"] >= 0 or stage == "score"], things, sizes)
        value = figures["objects"].get("mean_iou")
        ask(value is None or value <= best + 0.01, f"mean IoU {value}, at most {best} can be")


def _mean_best_iou(truth: Any, rows: list[Any], things: set[int], sizes: dict[int, tuple[int, int]]) -> float:
    """The mean over objects of the best IoU with any label [percent]: what no matching can surpass."""
    values = []
    for item in truth["annotations"]:
        if item.get("iscrowd", 0) or item["category_id"] not in things:
            continue
        mask = oracles.mask_of(item["segmentation"], *sizes[item["image_id"]])
        others = [oracles.mask_of(row["segmentation"], *sizes[row["image_id"]]) for row in rows
                  if row["image_id"] == item["image_id"]]
        values.append(max(((mask & other).sum() / max(1, (mask | other).sum()) for other in others), default=0.0))
    return 100 * float(np.mean(values)) if values else 0.0


# Weights and intermediates

def _network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))


def _build_weights(case: Path) -> None:
    save_weights(case / "user/weights.pt", _network().state_dict())


def _spoil_weights(random: Random, case: Path) -> str:
    path = case / "user/weights.pt"
    if random.random() < 0.5:
        return spoil_file(random, path)
    state: Any = dict(_network().state_dict())
    done = spoil_tree(random, state)
    if random.random() < 0.3:
        name = random.choice(sorted(map(str, state)))
        state[name] = random.choice([torch.zeros(2, 2), torch.zeros(()), torch.zeros(4, dtype=torch.complex64),
                                     torch.zeros(4).to_sparse(), odd_value(random)])
    torch.save(random.choice([state, {"state_dict": state}, [state]]) if random.random() < 0.2 else state, path)
    return done


def _run_weights(random: Random, case: Path) -> torch.nn.Module:
    network = _network()
    for value in network.state_dict().values():
        value.zero_()
    load_weights(case / "user/weights.pt", network)
    return network


def _check_weights(case: Path, network: torch.nn.Module) -> None:
    state = torch.load(case / "user/weights.pt", map_location="cpu", weights_only=True)
    for name, value in network.state_dict().items():
        ask(torch.equal(value, state[name].to(value.dtype)) or bool(value.isnan().any()), f"{name} has other weights")


def _build_stored(case: Path) -> None:
    samples.proposals(case / "desk")
    image = {"id": 11, "height": samples.HEIGHT, "width": samples.WIDTH}
    masks = [rle.encode(np.random.default_rng(number).random((samples.HEIGHT, samples.WIDTH)) < 0.5)
             for number in range(5)]
    from stages.proposals.segments import from_rles
    found = from_rles((samples.HEIGHT, samples.WIDTH), masks, np.linspace(1, 0, 5))
    np.savez_compressed(case / f"user/{layout.image_key(image)}.npz", **found.arrays())


def _spoil_stored(random: Random, case: Path) -> str:
    path = next((case / "user").glob("*.npz"))
    if random.random() < 0.4:
        return spoil_file(random, path)
    arrays = dict(np.load(path))
    name = random.choice(sorted(arrays))
    value = arrays[name]
    arrays[name] = random.choice([
        value[:-1], value[::-1], np.concatenate([value, value]), value.astype(np.float64), value.astype("U8"),
        value[None], np.zeros(0), np.array(3), np.array([{}], object), value * 0, value + 1, -value.astype(np.int64),
        np.full(value.shape, np.nan), np.frombuffer(spoil_bytes(random, value.tobytes()), np.uint8),
        value.astype(complex),
        np.zeros((0, 3)), value.astype(bool), np.full(value.shape, 2**62), np.array(["x"])])
    if random.random() < 0.2:
        del arrays[random.choice(sorted(arrays))]
    np.savez(path, **arrays)
    return f"{name} has shape {arrays[name].shape if name in arrays else None}"


def _run_stored(random: Random, case: Path) -> Any:
    return read_proposals(case / "user", {"id": 11, "height": samples.HEIGHT, "width": samples.WIDTH})


def _check_stored(case: Path, found: Any) -> None:
    for place in range(len(found)):
        mask = oracles.mask_of(found.rle(place), samples.HEIGHT, samples.WIDTH)
        ask((found.mask(place) == mask).all() and found.areas[place] == mask.sum(), f"mask {place}")
        ask(np.isfinite(float(found.scores[place])), "a score that is no number")


def _build_map(case: Path) -> None:
    rng = np.random.default_rng(0)
    write_semantic_png(case / "user/map.png", rng.choice([0, 4, 9, 255], (samples.HEIGHT,
                                                                          samples.WIDTH)).astype(np.uint8))


def _check_map(case: Path, indices: np.ndarray) -> None:
    with Image.open(case / "user/map.png") as image:
        values = np.array(image).astype(np.int64)
    ids = np.array([0, 4, 9, 255])
    ask((ids[indices] == np.where(values == 65535, 255, values)).all(), "other classes")


def _run_contract(random: Random, case: Path) -> Any:
    """Any later stage that reads a file of instances."""
    return read_coco(Path(LABELS))


def _check_contract(case: Path, content: Any) -> None:
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for row in content["annotations"]:
        if row.get("segmentation") is not None:
            mask = oracles.mask_of(row["segmentation"], *sizes[row["image_id"]])
            ask((rle.decode(row["segmentation"]) == mask).all(), f"annotation {row['id']}")


KINDS = {
    "masks": Kind(_build_masks, lambda random, case: "40 masks", _run_masks, _check_masks),
    "proposals": Kind(lambda case: samples.proposals(case / "desk"), _spoil_proposals, _run_proposals, _check_proposals,
                      lambda case: ask(not (case / "desk/data/proposals").exists(), "refused, and there are proposals"),
                      ("desk/data/proposals", "desk/.work", "desk/params.yaml")),
    "score": Kind(_build_run, lambda random, case: _spoil_run(random, case, _SCORED),
                  lambda random, case: score.main(Path("params.yaml")),
                  lambda case, _: _check_metrics(case, "score", "train", Path(LABELS)),
                  lambda case: ask(not (case / "desk/metrics").exists(), "refused, and there are metrics"),
                  ("desk/metrics",)),
    "evaluate": Kind(_build_run, lambda random, case: _spoil_run(random, case, _EVALUATED),
                     lambda random, case: evaluate.main(Path("params.yaml")),
                     lambda case, _: _check_metrics(case, "evaluate", "val", Path(PREDICTIONS)),
                     lambda case: ask(not (case / "desk/metrics").exists(), "refused, and there are metrics"),
                     ("desk/metrics",)),
    "report": Kind(_build_run, lambda random, case: _spoil_run(random, case, _REPORTED),
                   lambda random, case: report.main(Path("params.yaml")), _check_report,
                   lambda case: ask(not (case / "desk/metrics").exists(), "refused, and there is a page"),
                   ("desk/metrics",)),
    "labels": Kind(_build_run, lambda random, case: _spoil_run(random, case, (LABELS,)), _run_contract,
                   _check_contract),
    "weights": Kind(_build_weights, _spoil_weights, _run_weights, _check_weights),
    "stored": Kind(_build_stored, _spoil_stored, _run_stored, _check_stored),
    "label maps": Kind(_build_map, lambda random, case: spoilers.spoil_labels(random, case / "user/map.png"),
                       lambda random, case: read_indices(case / "user/map.png", (samples.HEIGHT, samples.WIDTH),
                                                         index_table([4, 9])), _check_map),
}
