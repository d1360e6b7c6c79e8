"""What odd points and proposals get: a defined result or a sentence, from the annotation to the labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.wise.given import annotated, background, candidates_of, read_points
from pipelines.wise.masks import image_labels
from pipelines.wise.network import WiseNet
from pipelines.wise.prediction import image_maps
from pipelines.wise.samples import PointedImages
from pipelines.wise.settings import CueSettings, NetworkSettings, WiseSettings
from pipelines.wise.training import joint_losses
from stages.cues.settings import BackboneSettings
from stages.labels import rle
from stages.labels.coco import label_problems
from stages.proposals import from_file
from stages.proposals.segments import from_rles, read_proposals
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import write_npz

IMAGE = {"id": 7, "width": 40, "height": 32, "file_name": "7.png"}
KEY = "000000000007"
SIZE = (32, 40)
NETWORK = NetworkSettings(
    backbone=BackboneSettings(name="resnet10t", weights="none", stride=16, arguments={"channels": [8, 8, 16, 16],
                                                                                      "stem_width": 8}),
    strides=(16, 8), dimensions=4, pixels=20, hard=50)
SETTINGS = WiseSettings(cues=CueSettings(objectness=0.3), network=NETWORK)


def box(top, left, bottom, right):
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


class Desk:
    """One image of two classes, 3 and 5, with points and proposals as wanted."""

    def __init__(self, folder):
        layout.IMAGES.mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(layout.IMAGES / "7.png")
        self.points, self.proposals, self.maps = (folder / name for name in ("points", "proposals", "maps"))
        self.points.mkdir()
        self.propose([(box(0, 0, 12, 14), 0.9), (box(0, 0, 32, 40), 0.8), (box(20, 24, 32, 40), 0.7)])

    def propose(self, proposals, size=SIZE):
        found = from_rles(size, [rle.encode(mask) for mask, _ in proposals], [score for _, score in proposals])
        write_npz(self.proposals / f"{KEY}.npz", **found.arrays())

    def point(self, *points):
        """(x, y, category) each; as `annotate` accepts them."""
        objects = [{"id": number, "category_id": category, "point": [x, y]}
                   for number, (x, y, category) in enumerate(points, start=1)]
        assert not [problem for item in objects for problem in label_problems(item, IMAGE["width"], IMAGE["height"])]
        (self.points / f"{KEY}.json").write_text(json.dumps(annotated(objects)))

    def samples(self, flip=False):
        return PointedImages([IMAGE], self.points, self.proposals, {3: 1, 5: 2}, SETTINGS.cues,
                             NETWORK.model_copy(update={"flip": flip}))

    def learn(self):
        """The losses of one step, all finite, with a gradient that is."""
        torch.manual_seed(0)
        model = WiseNet(NETWORK, 2)
        terms = joint_losses(model, model, [self.samples().sample(0, np.random.default_rng(0))], NETWORK)
        total = torch.stack([*terms.values()]).sum()
        total.backward()
        assert torch.isfinite(total)
        assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)
        return {name: float(term.detach()) for name, term in terms.items()}

    def label(self, masks="embedding"):
        """Labels from the points, by groups that are the upper left and the lower right quarter."""
        located = read_points(self.points, IMAGE)
        groups = np.full(SIZE, -1, np.int16)
        if len(located.xy):
            groups[:16, :20] = 0
            groups[16:, 20:] = len(located.xy) - 1
        write_npz(self.maps / f"{KEY}.npz", lnet_yx=np.zeros((0, 2), np.int64), lnet_categories=np.zeros(0, np.int64),
                  lnet_scores=np.zeros(0, np.float32), blobs=np.zeros(SIZE, np.uint16), groups_given=groups,
                  likeness_given=np.full(len(located.xy), 0.5, np.float32))
        settings = SETTINGS.model_copy(update={"synthesis": SETTINGS.synthesis.model_copy(update={"masks": masks})})
        return image_labels(IMAGE, maps=self.maps, points=self.points, proposals=self.proposals, source="given",
                            settings=settings)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


CORNERS = ((-0.5, -0.5, 3), (39.5, 31.5, 5), (39.5, -0.5, 3), (-0.5, 31.5, 5))


def test_points_on_the_border(desk):
    """The outermost positions that an annotation may have are the corner pixels."""
    desk.point(*CORNERS)
    corners = [[0, 0], [31, 39], [0, 39], [31, 0]]
    located = read_points(desk.points, IMAGE)
    assert located.pixels(SIZE).tolist() == corners
    for flip in (False, True):
        sample = desk.samples(flip).sample(0, np.random.default_rng(0 if flip else 1))
        rows = sample["points"].yx.tolist()
        assert sorted(rows) == sorted(corners) and sample["pairs"]["points"].shape == (4,)
    assert desk.learn()["embedding"] > 0
    found = candidates_of(read_proposals(desk.proposals, IMAGE), located.pixels(SIZE), SETTINGS.cues)
    assert found.allowed.tolist() == [[True, True, False], [False, True, True], [False, True, False],
                                      [False, True, False]]
    for row, (y, x) in zip(desk.label(), corners, strict=True):
        assert rle.decode(row["segmentation"])[y, x]


def test_points_beyond_the_border_are_refused():
    for point in ([45, 3], [3, 37], [-6, 3]):
        (problem,) = label_problems({"point": point}, 40, 32)
        assert "lies outside the image of 40 x 32 pixels" in problem


@pytest.mark.parametrize("categories", [(3, 3), (3, 5)])
def test_two_points_on_one_pixel(desk, categories):
    """Of one class they are one seed; of two classes two; each annotation keeps its label and its pseudo-mask."""
    desk.point((5.2, 6.1, categories[0]), (4.9, 6.4, categories[1]))
    sample = desk.samples().sample(0, np.random.default_rng(0))
    assert sample["points"].classes.tolist() == sorted({1 if category == 3 else 2 for category in categories})
    assert sample["pairs"]["points"].shape == (2,)
    # Neither is a negative of the other: they are the same pixel.
    first, second = sample["pairs"]["points"].tolist()
    assert first == second
    different = ~sample["pairs"]["same"]
    both = (sample["pairs"]["first"] == first) & (sample["pairs"]["second"] == first)
    assert not (different & both).any()
    desk.learn()
    rows = desk.label()
    assert [row["weak_id"] for row in rows] == [1, 2] and [row["category_id"] for row in rows] == list(categories)
    assert all(rle.decode(row["segmentation"])[6, 5] for row in rows)


def test_a_point_that_no_proposal_contains(desk):
    """The point itself is its pseudo-mask, the group its label, and the label says that it had no candidate."""
    desk.propose([(box(0, 0, 12, 14), 0.9), (box(0, 0, 32, 40), 0.2)])
    desk.point((5, 5, 3), (30, 30, 5))
    sample = desk.samples().sample(0, np.random.default_rng(0))
    pairs = sample["pairs"]
    lonely = pairs["points"][1]
    partners = pairs["second"][(pairs["first"] == lonely) & pairs["same"]]
    assert partners.tolist() == [int(lonely)], "the only pixel of its mask"
    desk.learn()
    rows = desk.label()
    assert [row["candidates"] for row in rows] == [1, 0] and [row["replaced"] for row in rows] == [1, 0]
    assert (rle.decode(rows[1]["segmentation"]) == box(16, 20, 32, 40)).all() and rows[1]["score"] == 0.5


def test_an_image_without_proposals(desk):
    desk.propose([])
    desk.point((5, 5, 3))
    desk.learn()
    assert background(read_proposals(desk.proposals, IMAGE), candidates_of(
        read_proposals(desk.proposals, IMAGE), np.array([[5, 5]]), SETTINGS.cues), np.array([[5, 5]]),
        SETTINGS.cues).sum() == 32 * 40 - 1
    assert [(row["candidates"], row["replaced"]) for row in desk.label("best_proposal")] == [(0, 0)]


def test_an_image_without_points(desk):
    """It has the image and the false-positive term alone, and no label."""
    desk.point()
    terms = desk.learn()
    assert terms["image"] > 0 and terms["false_positive"] >= 0
    assert terms["point"] == terms["split"] == terms["embedding"] == 0
    assert desk.label() == []


def test_a_batch_of_images_with_and_without_points(desk):
    desk.point((5, 5, 3), (30, 30, 5))
    pointed = desk.samples().sample(0, np.random.default_rng(0))
    desk.point()
    empty = desk.samples().sample(0, np.random.default_rng(0))
    model = WiseNet(NETWORK, 2)
    both = joint_losses(model, model, [pointed, empty], NETWORK)
    single = [joint_losses(model, model, [sample], NETWORK) for sample in (pointed, empty)]
    assert both["point"].item() == pytest.approx(single[0]["point"].item() / 2, rel=1e-3)
    assert both["embedding"].item() == pytest.approx(single[0]["embedding"].item() / 2, rel=1e-3)


def test_proposals_of_another_image_size(desk):
    desk.propose([(np.ones((40, 32), bool), 0.9)], (40, 32))
    desk.point((5, 5, 3))
    message = r"proposals of an image of 32 x 40 px, image 7 has 40 x 32; delete its folder and run `dvc repro`"
    with pytest.raises(UserError, match=message):
        desk.samples().sample(0, np.random.default_rng(0))
    with pytest.raises(UserError, match=message):
        desk.label()


def test_damaged_files_of_proposals(desk):
    desk.point((5, 5, 3))
    path = desk.proposals / f"{KEY}.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(UserError, match=r"000000000007.npz: cannot be read as .npz"):
        desk.label()
    stored = from_rles(SIZE, [rle.encode(box(0, 0, 5, 5))] * 2, [0.9, 0.8]).arrays()
    for change in ({"scores": stored["scores"][:1]}, {"ends": stored["ends"][:1]}, {"ends": stored["ends"][::-1]},
                   {"counts": stored["counts"][:-1]}):
        write_npz(path, **stored | change)
        with pytest.raises(UserError, match=r"000000000007.npz: .* do not fit each other"):
            desk.label()
    write_npz(path, **stored)
    assert len(desk.label()) == 1


def test_broken_run_lengths(desk, tmp_path):
    """Of another program's file; pycocotools would read beyond its memory."""
    good = rle.encode(box(0, 0, 5, 5))
    results = tmp_path / "results.json"
    for mask, message in (({**good, "counts": good["counts"][:-1]}, "RLE counts"),
                          ({"size": [32, 40], "counts": [100, 20]}, "cover 120 pixels"),
                          ({"size": [32, 40], "counts": [-5, 1285]}, "numbers from 0 on")):
        results.write_text(json.dumps([{"image_id": 7, "segmentation": mask, "score": 0.5}]))
        places, _ = from_file.find_entries([results], [7])
        with pytest.raises(UserError, match=rf"results.json: image 7, the proposal at byte 1: .*{message}"):
            from_file.read_image(IMAGE, places[7], 1000)


def test_more_than_a_thousand_proposals(desk, tmp_path):
    """A file's are cut to the limit; what is stored is used, however many there are."""
    rng = np.random.default_rng(0)
    masks = []
    while len(masks) < 1300:
        mask = rng.random(SIZE) < 0.5
        mask[5, 5] = True
        masks.append(mask)
    entries = [{"image_id": 7, "segmentation": rle.encode(mask), "score": 0.9 - number / 10000}
               for number, mask in enumerate(masks)]
    results = tmp_path / "results.json"
    results.write_text(json.dumps(entries[::-1]))
    found, counts = from_file.read_image(IMAGE, from_file.find_entries([results], [7])[0][7], 1000)
    assert len(found) == 1000 and counts["left_out"] == 300
    assert found.scores.tolist() == pytest.approx([0.9 - number / 10000 for number in range(1000)])
    desk.propose([(mask, 0.9 - number / 10000) for number, mask in enumerate(masks)])
    desk.point((5, 5, 3))
    desk.learn()
    assert desk.label()[0]["candidates"] == 1300


def test_an_image_of_a_few_pixels(tmp_path, monkeypatch):
    """Smaller than one cell of the coarsest level."""
    model = WiseNet(NETWORK, 2).eval()
    with torch.no_grad():
        location, embeddings = image_maps(model, torch.zeros(3, 3, 5, dtype=torch.uint8), 1e6)
    assert location.shape == (3, 3, 5) and embeddings.shape == (4, 3, 5)
    assert torch.isfinite(location).all() and torch.isfinite(embeddings).all()
