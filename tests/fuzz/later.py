"""What later stages read: settings, masks, proposals, labels, predictions, label maps, weights and intermediates."""

from __future__ import annotations

import copy
import json
import shutil
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from pydantic import BaseModel

from pipelines import check
from pipelines.settings import load_params
from stages.evaluation import evaluate, score
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

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted((ROOT / "pipelines/presets").glob("*.yaml"))


# Settings

def _build_settings(case: Path) -> None:
    for name in ("pipelines", "stages", "dvc.yaml"):
        (case / "desk" / name).symlink_to(ROOT / name)
    shutil.copyfile(ROOT / "pipelines/presets/shapes.yaml", case / "desk/params.yaml")


@cache
def _preset(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _spoil_settings(random: Random, case: Path) -> str:
    path = case / "desk/params.yaml"
    content = copy.deepcopy(_preset(random.choice(PRESETS)))
    way = random.random()
    if way < 0.15:
        shutil.copyfile(random.choice(PRESETS), path)
        return spoil_file(random, path)
    done = []
    for _ in range(random.choice([1, 1, 2, 3])):
        section = random.choice(sorted(content))
        if isinstance(content[section], dict) and content[section] and random.random() < 0.9:
            done.append(f"{section}: {spoil_tree(random, content[section])}")
        else:
            done.append(spoil_tree(random, content, section))
    try:
        text = yaml.dump(content, Dumper=getattr(yaml, "CDumper", yaml.Dumper), sort_keys=False)
    except UnicodeEncodeError:  # halves of characters, which the other one escapes
        text = yaml.dump(content, sort_keys=False)
    if way > 0.6:
        lines = text.split("\n")
        place = random.choice([number for number, line in enumerate(lines) if ": " in line] or [0])
        key = lines[place].partition(":")[0]
        odd = random.choice([
            "2020-13-45", "2001-12-14t21:59:43.10-05:00", "!!python/object/apply:os.system ['true']", "!!timestamp x",
            "!!binary x", "0x" + "f" * 5000, "1:59:59:59:59", "0b" + "1" * 20_000, "*a", "&a [*a]", "<<", "{<<: 1}",
            "[" * 2000,
            "!!set {a}", "!!omap [a: 1]", "0o17", "017", "~", "yes", ".inf", ".nan", "1e999", "1_000", "'", '"\\ud800"',
            '"\\x1b[2J"', "|", "? a", "{a: 1, a: 2}", "!!int x", "!!float x", "!!bool x", "9" * 5000, "@", "`", "%",
            "\t1",
            "&a [x,x,x,x,x,x,x,x,x]", "[" + "a, " * 5000 + "]", "- 1", '"' + "a" * 100_000 + '"', "!!str", "!!null x",
            "=",
            BOMB])
        lines[place] = f"{key}: {odd}"
        text = "\n".join(lines)
        done.append(f"{key.strip()}: {odd:.60}")
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return "; ".join(done)


BOMB = "[&a [x,x,x,x,x,x,x,x,x], " + ", ".join(
    f"&{after} [{','.join([f'*{before}'] * 9)}]" for before, after in zip("abcdefgh", "bcdefghi", strict=True)) + "]"
"""Lists of lists of aliases: a billion texts, if they are ever written out."""


def _run_settings(random: Random, case: Path) -> tuple[Any, bool]:
    whole = random.random() < 0.15
    settings = load_params(Path("params.yaml"))
    if whole:
        check.main(Path("params.yaml"))
    return settings, whole


def _check_settings(case: Path, result: tuple[Any, bool]) -> None:
    settings, whole = result
    content = yaml.safe_load((case / "desk/params.yaml").read_text(encoding="utf-8"))
    given = _plain(settings)
    for section, value in content.items():
        _same(value, given[section], section)
    ask((case / "desk/data/check").exists() == whole, "data/check")


def _plain(value: Any) -> Any:
    if isinstance(value, SimpleNamespace):
        return {key: _plain(item) for key, item in vars(value).items()}
    return value.model_dump() if isinstance(value, BaseModel) else value


def _same(given: Any, taken: Any, where: str) -> None:
    """What stands in the file is what the settings hold; numbers may change their type."""
    if isinstance(given, dict) and isinstance(taken, dict):
        for key, value in given.items():
            ask(key in taken, f"{where}.{key} was accepted and is nowhere")
            _same(value, taken[key], f"{where}.{key}")
    elif isinstance(given, list) and isinstance(taken, (list, tuple)):
        ask(len(given) == len(taken), f"{where} has {len(given)} items, taken were {len(taken)}")
        for place, (first, second) in enumerate(zip(given, taken, strict=True)):
            _same(first, second, f"{where}.{place}")
    elif isinstance(taken, bool):
        words = ("1", "1.0", "t", "true", "y", "yes", "on") if taken else ("0", "0.0", "-0.0", "f", "false", "n",
                                                                           "no", "off")
        ask(str(given).lower() in words, f"{where}: {given!r} was taken as {taken}")
    elif isinstance(taken, (int, float)) and not isinstance(taken, bool):
        ask(not isinstance(given, bool) and float(given) == float(taken), f"{where}: {given!r} was taken as {taken!r}")
    else:
        ask(given == taken or str(given) == str(taken), f"{where}: {given!r:.80} was taken as {taken!r:.80}")


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


def _spoil_run(random: Random, case: Path, names: tuple[str, ...]) -> str:
    path = case / "desk" / random.choice(names)
    if path.is_dir():
        return spoilers.spoil_labels(random, spoilers.pick(random, path))
    return spoilers.spoil_json(random, path, 0.4)


LABELS = str(layout.pseudo_labels("irnet"))
PREDICTIONS = str(layout.predictions("irnet"))
_SCORED = (LABELS, LABELS, LABELS, str(layout.TRUTH["train"]), "data/irnet/panoptic.json", "data/irnet/panoptic",
           "data/irnet/figures.json")
_EVALUATED = (PREDICTIONS, PREDICTIONS, str(layout.TRUTH["val"]), str(layout.WEAK["train"]), "data/irnet/figures.json")


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
    state = torch.load(case / "user/weights.pt", weights_only=True)
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
    "settings": Kind(_build_settings, _spoil_settings, _run_settings, _check_settings,
                     lambda case: ask(not (case / "desk/data/check").exists(), "refused, and data/check is there"),
                     ("desk/data", "desk/metrics")),
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
    "labels": Kind(_build_run, lambda random, case: _spoil_run(random, case, (LABELS,)), _run_contract,
                   _check_contract),
    "weights": Kind(_build_weights, _spoil_weights, _run_weights, _check_weights),
    "stored": Kind(_build_stored, _spoil_stored, _run_stored, _check_stored),
    "label maps": Kind(_build_map, lambda random, case: spoilers.spoil_labels(random, case / "user/map.png"),
                       lambda random, case: read_indices(case / "user/map.png", (samples.HEIGHT, samples.WIDTH),
                                                         index_table([4, 9])), _check_map),
}
