"""What images, maps and cues can lack: a clear error, or a result that is defined."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from chain import digests
from small_chain import HEIGHT, MANY, POINTS, WIDTH, copy, prepare, read, run
from torch import nn

from pipelines.bestie import extraction
from pipelines.bestie.learning import guidance
from pipelines.bestie.losses import objective
from pipelines.bestie.network import Outputs
from pipelines.bestie.samples import collate
from pipelines.bestie.settings import BestieSettings
from pipelines.bestie.simple_labels import SOURCES
from pipelines.bestie.transfer import pseudo_label
from stages.cues.backbone import grid_of
from stages.runtime.errors import UserError
from stages.runtime.files import read_npz, write_npz


class Dark(nn.Module):
    """A classifier that sees nothing of any class anywhere, and the second class nowhere but in one place."""

    def __init__(self, second: bool) -> None:
        super().__init__()
        self.second, self.backbone = second, nn.Module()
        self.backbone.grid = grid_of(4)

    def maps(self, images):
        found = -torch.ones(len(images), 2, images.shape[-2] // 4, images.shape[-1] // 4)
        found[:, 1, 4, 6] = 1.0 if self.second else 0.0
        return found


@pytest.mark.parametrize(("second", "tags", "wanted"), [
    (False, [3, 9], []), (True, [3, 9], [9]), (True, [3], []), (True, [], []), (True, [12], [])])
def test_an_image_without_peaks_has_no_cues(monkeypatch, second, tags, wanted):
    monkeypatch.setattr(extraction, "load_peak_classifier", lambda *_: (Dark(second).eval(), [3, 9]))
    infer = extraction.peak_cues(None, BestieSettings(cues={"side": 0, "flip": False}), torch.device("cpu"))
    found = infer("", {"id": 1, "tags": tags}, torch.zeros(3, 40, 50, dtype=torch.uint8))
    assert found["cues"].dtype == np.int64 and found["cues"].shape == (len(wanted), 3)
    assert found["cues"][:, 0].tolist() == wanted and len(found["scores"]) == len(wanted)
    assert found["attention"].shape == (10, 13) and bool(found["attention"].any()) == bool(wanted)


SEMANTIC = np.array([[1, 1, 0, 0, 2, 2],
                     [1, 1, 0, 0, 2, 2],
                     [0, 0, 0, 0, 0, 0],
                     [1, 1, 1, -1, -1, -1]], np.int16)


@pytest.mark.parametrize(("cues", "components", "guided"), [
    ([], 3, []),  # none at all
    ([[0, 0, 0], [0, 1, 1]], 3, []),  # two in one component, none in the others
    ([[0, 0, 0], [0, 0, 0]], 3, []),  # twice the same
    ([[0, y, x] for y in range(4) for x in range(6)], 3, []),  # everywhere
    ([[0, 2, 2], [1, 3, 5], [0, 0, 3]], 3, []),  # background, undecided pixels
    ([[1, 0, 0], [0, 0, 4]], 3, []),  # each in the other's class
    ([[0, 3, 0], [2, 0, 4]], 3, [1]),  # a tag, 2, without a pixel in the map; its cue lies in another class
    ([[0, 3, 1], [1, 9, 9], [1, 0, 5]], 3, [1, 2]),
])
def test_components_and_their_cues(cues, components, guided):
    label = pseudo_label(SEMANTIC, [0, 1, 2], np.array(cues, np.int64), smallest=1)
    assert label.components.max() == components
    assert sorted(np.unique(SEMANTIC[label.instances > 0]).tolist()) == guided
    assert len(label.centres) == len(guided)
    for name in SOURCES:  # labels without a network: no cue, no label
        inside = np.array([cue for cue in cues if cue[1] < 4], np.int64).reshape(-1, 3)
        made = SOURCES[name](SEMANTIC, inside, 1)
        assert made.shape == SEMANTIC.shape and set(np.unique(made)) <= {*range(len(inside) + 1)}
        assert len(cues) > 0 or not made.any()


@pytest.mark.parametrize("value", [0, -1], ids=["no class", "undecided"])
@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("cues", [[], [[0, 3, 3], [1, 4, 4]]], ids=["no cues", "cues"])
def test_a_batch_that_guides_nothing_trains_nothing(value, points, cues):
    """Neither offsets nor, without foreground, heat; with a map that decides nothing not even the semantic head."""
    semantic = np.full((8, 9), value, np.int16)
    label = pseudo_label(semantic, [0, 1], np.array(cues, np.int64), smallest=1, points=points)
    batch = collate([{"semantic": torch.from_numpy(semantic), "inside": torch.ones(8, 9, dtype=torch.bool),
                      "components": torch.from_numpy(label.components), "instances": torch.from_numpy(label.instances),
                      "centres": torch.from_numpy(label.centres)}] * 2)
    settings = BestieSettings(cues={"source": "points" if points else "peaks"})
    outputs = Outputs(*(torch.randn(2, channels, 8, 9, requires_grad=True) for channels in (3, 2, 2)))
    pseudo, refined = guidance(outputs, batch, 2, settings, refine=True)
    terms = objective(outputs.logits, outputs.heat, outputs.offset, batch["semantic"], pseudo, refined,
                      settings.network)
    sum(terms.values()).backward()
    assert {name for name, value in terms.items() if float(value.detach())} == (
        {"semantic"} if value == 0 else set())
    assert not outputs.heat.grad.any() and not outputs.offset.grad.any()
    assert bool(outputs.logits.grad.any()) == (value == 0)


def damage(path, kind):
    semantic = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if kind == "missing":
        path.unlink()
    elif kind == "broken":
        path.write_bytes(path.read_bytes()[:60])
    else:
        changed = {"size": semantic[:-1], "unknown": np.where(semantic == 0, 77, semantic),
                   "colour": np.repeat(semantic[..., None], 3, axis=2)}
        cv2.imwrite(str(path), changed[kind])


MESSAGES = {"missing": "", "broken": "cannot be read as a PNG", "size": rf"{WIDTH} x {HEIGHT} pixels, as its image has",
            "unknown": r"the values \[77\] are no category ids", "colour": "one channel was expected"}


@pytest.mark.parametrize("kind", MESSAGES)
def test_wrong_maps_are_refused_by_name(tags, tmp_path, kind):
    """Given maps by both stages that read them, and the method's own by the training."""
    prepare(tmp_path)
    copy(tags, tmp_path / "own")
    for folder, stage, maps in ((tmp_path, "train_segmenter", "segmenter"), (tmp_path, "infer_semantic", "folder"),
                                (tmp_path / "own", "train_refiner", "folder")):
        path = sorted((folder / ("maps" if folder == tmp_path else "data/bestie/semantic")).iterdir())[1]
        before = path.read_bytes()
        damage(path, kind)
        with pytest.raises(UserError, match=rf"(?s){path.name}.*{MESSAGES[kind]}"):
            run(f"pipelines.bestie.{stage}", folder, maps={"source": maps})
        path.write_bytes(before)


@pytest.mark.parametrize("value", [0, 255], ids=["no class", "undecided"])
def test_maps_without_a_class_go_through(tags, tmp_path, value):
    """Every tag is without a pixel; nothing is guided, and labels are made all the same."""
    prepare(tmp_path)
    copy(tags, tmp_path / "own")
    for path in (tmp_path / "maps").iterdir():
        cv2.imwrite(str(path), np.full((HEIGHT, WIDTH), value, np.uint8))
    run("pipelines.bestie.train_segmenter", tmp_path, maps={"source": "segmenter"})
    for path in sorted((tmp_path / "maps").iterdir()):
        path.rename(tmp_path / "own/data/bestie/semantic" / path.name)
    before = digests(tmp_path / "own/models/bestie/refiner")
    run("pipelines.bestie.train_refiner", tmp_path / "own")
    run("pipelines.bestie.retrain", tmp_path / "own", retraining={"iterations": 1}, **MANY)
    for stage in ("synthesize", "illustrate"):
        run(f"pipelines.bestie.{stage}", tmp_path / "own")
    assert digests(tmp_path / "own/models/bestie/refiner")["weights.pt"] != before["weights.pt"]
    moments = read(tmp_path / "own/models/bestie/refiner/moments.json")["moments"]
    assert moments and not any(moment["annotations"] for moment in moments)
    assert len(read(tmp_path / "own/data/bestie/pseudo_labels.json")["images"]) == 6


@pytest.mark.parametrize("variant", ["tags", "points"])
def test_images_without_cues_go_through(variant, request, tmp_path):
    folder, changes = request.getfixturevalue(variant), POINTS if variant == "points" else {}
    copy(folder, tmp_path)
    for path in (tmp_path / "data/bestie/cues").iterdir():
        write_npz(path, **{**read_npz(path), "cues": np.zeros((0, 3), np.int64), "scores": np.zeros(0, np.float32)})
    run("pipelines.bestie.train_refiner", tmp_path, **changes)
    for iterations in (1, 0):
        run("pipelines.bestie.retrain", tmp_path, retraining={"iterations": iterations}, **changes)
        for stage in ("synthesize", "illustrate"):
            run(f"pipelines.bestie.{stage}", tmp_path, **changes)
        if variant == "points":
            assert read(tmp_path / "data/bestie/pseudo_labels.json")["annotations"] == []
    moments = read(tmp_path / "models/bestie/refiner/moments.json")["moments"]
    kinds = {one["kind"] for moment in moments for one in moment["annotations"]}
    assert kinds == ({"refined"} if variant == "tags" else set())
    sorted((tmp_path / "data/bestie/cues").iterdir())[2].unlink()
    with pytest.raises(UserError, match=r"cues/\d{12}.npz: no such file; the stage that writes it has not run"):
        run("pipelines.bestie.train_refiner", tmp_path, **changes)
