"""The detectron2 engine, where Detectron2 is installed."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from detector_scenes import CATEGORIES, HEIGHT, WIDTH, square, write_params

warnings.filterwarnings("ignore", message=".*pkg_resources.*")
pytest.importorskip("detectron2", reason="Detectron2 is not installed: its engine is not tested")

from detectron2.solver import build_lr_scheduler  # noqa: E402
from detectron2.structures import Boxes, Instances  # noqa: E402
from detectron2.utils.events import EventStorage  # noqa: E402

from stages.detector import detectron2_engine, engines, predict, train  # noqa: E402
from stages.detector import detectron2_parts as parts  # noqa: E402
from stages.detector.data import Labels, read_labels  # noqa: E402
from stages.detector.samples import TrainingSamples, repeat_factors  # noqa: E402
from stages.detector.settings import DetectorTrainSettings  # noqa: E402
from stages.labels import coco, rle  # noqa: E402
from stages.runtime import layout  # noqa: E402
from stages.runtime.errors import UserError  # noqa: E402


def change(tiny, **values):
    return tiny.model_copy(update={"engine": "detectron2", "detectron2": tiny.detectron2.model_copy(update=values)})


def test_the_sample_in_detectron2s_form(dataset, tiny):
    settings = tiny.train.model_copy(update={"flip": 0.0})
    labels = read_labels(layout.pseudo_labels("irnet"), layout.IMAGES, settings)
    image, target = TrainingSamples(labels, settings).sample(0, np.random.default_rng(0))
    sample = parts.to_detectron2(image, target, bgr=True)
    assert torch.equal(sample["image"][0], image[2] * 255)
    found = sample["instances"]
    assert sorted(found.gt_classes.tolist()) == [0, 1]
    assert torch.equal(found.gt_masks.get_bounding_boxes().tensor, found.gt_boxes.tensor)
    assert sample["crowd"].sum() == 100
    assert len(parts.to_detectron2(*TrainingSamples(labels, settings).sample(3, np.random.default_rng(0)),
                                   bgr=False)["instances"]) == 0


def test_labels_train_in_plain_detectron2_unchanged(dataset, tiny):
    """Detectron2's own reader and mapper take the JSON as it is, in bitmask format."""
    from detectron2.data import DatasetMapper
    from detectron2.data.datasets import load_coco_json

    content = coco.read_coco(layout.pseudo_labels("irnet"))
    content["categories"] = [item for item in content["categories"] if item["isthing"]]
    content["annotations"] = [item for item in content["annotations"] if item["category_id"] != 200]
    layout.pseudo_labels("irnet").write_text(json.dumps(content))
    records = load_coco_json(str(layout.pseudo_labels("irnet")), str(layout.IMAGES))
    assert [len(record["annotations"]) for record in records] == [3, 2, 2, 0]
    mapped = DatasetMapper(detectron2_engine.config(tiny, 2, "cpu"))(records[0])
    assert sorted(mapped["instances"].gt_masks.tensor.sum(dim=(1, 2)).tolist()) == [144, 196]


def test_batches_are_shuffled_passes_from_any_step():
    whole = list(parts.Batches(images=5, batch_size=2, seed=1, first=0, last=5))
    assert list(parts.Batches(images=5, batch_size=2, seed=1, first=3, last=5)) == whole[3:]
    numbers = [key for batch in whole for key in batch]
    assert [number for number, _ in numbers] == list(range(10))
    assert sorted(index for _, index in numbers[:5]) == sorted(index for _, index in numbers[5:]) == list(range(5))


def test_repeat_factors_are_detectron2s():
    from detectron2.data.samplers import RepeatFactorTrainingSampler

    random = np.random.default_rng(0)
    shown = [random.integers(0, 9, random.integers(0, 5)) ** 2 for _ in range(60)]
    labels = Labels([{"id": index} for index in range(60)],
                    {index: [{"category_id": int(item)} for item in items] for index, items in enumerate(shown)},
                    {index: [] for index in range(60)}, [], None)
    records = [{"annotations": [{"category_id": int(item)} for item in items]} for items in shown]
    theirs = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, 0.3)
    np.testing.assert_allclose(repeat_factors(labels, 0.3), theirs.numpy(), rtol=1e-6)


def test_batches_follow_the_repeat_factors(dataset, tiny):
    settings = tiny.model_copy(update={"train": tiny.train.model_copy(update={"repeat_threshold": 1.0, "steps": 40})})
    labels = read_labels(layout.pseudo_labels("irnet"), layout.IMAGES, settings.train)
    samples = TrainingSamples(labels, settings.train)
    batches = list(parts.Batches(samples.turn, settings.train.batch_size, seed=1, first=0, last=40))
    drawn = np.bincount([samples.place(index) for batch in batches for _, index in batch], minlength=4)
    factors = repeat_factors(labels, 1.0)
    assert np.abs(drawn - 80 * factors / factors.sum()).max() < 1


def test_anchors_and_proposals_in_crowds_are_no_negatives(tiny):
    model = detectron2_engine.build_model(detectron2_engine.config(tiny, 2, "cpu"))
    rule = parts.IgnoreCrowds(model)
    crowd = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    crowd[18:32, 28:42] = True
    rule.crowds = [crowd]
    objects = Instances((HEIGHT, WIDTH), gt_boxes=Boxes(torch.tensor([[4.0, 4, 20, 20]])),
                        gt_classes=torch.tensor([1]))
    boxes = Boxes(torch.tensor([[4.0, 4, 20, 20], [30, 20, 40, 30], [0, 25, 10, 35]]))
    with EventStorage():
        labels, _ = model.proposal_generator.label_and_sample_anchors([boxes], [objects])
        assert labels[0].tolist() == [1, -1, 0]
        proposals = Instances((HEIGHT, WIDTH), proposal_boxes=boxes[1:], objectness_logits=torch.zeros(2))
        used = model.roi_heads.label_and_sample_proposals([proposals], [objects])[0]
    assert sorted(used.proposal_boxes.tensor.tolist()) == [[0, 25, 10, 35], [4, 4, 20, 20]]


@pytest.mark.parametrize(("values", "message"), [
    ({"config": "COCO-InstanceSegmentation/nothing.yaml"}, "not available in Model Zoo"),
    ({"config": "mask_rcnn"}, "a .yaml of Detectron2's model zoo"),
    ({"overrides": ("MODEL.NOTHING", 1)}, "detectron2.overrides"),
    ({"overrides": ("MODEL.MASK_ON", "perhaps")}, "detectron2.overrides"),
    ({"weights": "nowhere.pkl"}, "no such file: nowhere.pkl"),
])
def test_configurations_that_do_not_exist(tiny, values, message):
    with pytest.raises(UserError, match=message):
        engines.check(change(tiny, **values))


def test_the_schedule_reaches_detectron2(tiny):
    cfg = detectron2_engine.config(tiny, 2, "cpu")
    assert cfg.INPUT.MASK_FORMAT == "bitmask"
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH) == (4, 2)
    assert cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupCosineLR"
    assert cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS is False


@pytest.mark.parametrize("steps, falls", [(1, ()), (2, (1,)), (3, (2,)), (9, (6, 8)), (16_000, (10672, 14224))])
def test_milestones_of_few_steps(tiny, steps, falls):
    """Detectron2 refuses two on one step, or more rates than steps."""
    schedule = DetectorTrainSettings(steps=steps)
    cfg = detectron2_engine.config(tiny.model_copy(update={"train": schedule}), 1, "cpu")
    assert cfg.SOLVER.STEPS == falls
    build_lr_scheduler(cfg, torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1))


def test_weights_that_run_code_are_refused(tmp_path):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": np.zeros(2, np.float32)}, "__author__": "somebody"}))
    checkpointer = parts.Checkpointer(torch.nn.Linear(1, 1))
    np.testing.assert_array_equal(checkpointer._load_file(str(path))["model"]["a"], [0, 0])
    path.write_bytes(pickle.dumps({"model": print}))
    with pytest.raises(pickle.UnpicklingError, match="builtins.print"):
        checkpointer._load_file(str(path))


def test_the_device_that_is_asked_for(dataset, tiny, monkeypatch):
    """`cuda:1` is not `cuda`, which is the first GPU; and the loaders of a GPU's process are its share."""
    from stages.runtime.settings import RuntimeSettings

    settings, found = change(tiny), []
    labels = read_labels(layout.pseudo_labels("irnet"), layout.IMAGES, tiny.train)
    runtime = RuntimeSettings(device="cuda:1", workers=6)
    monkeypatch.setattr(detectron2_engine.devices, "resolve", torch.device)
    monkeypatch.setattr(detectron2_engine, "_train", lambda labels, settings, cfg, *more: found.append(cfg))
    detectron2_engine.train(labels, settings, 0, runtime, layout.IMAGES)
    assert found[0].MODEL.DEVICE == "cuda:1"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    loader = detectron2_engine._loader(labels, settings, 0, runtime, found[0], 0)
    assert loader.num_workers == 3
    monkeypatch.setattr(detectron2_engine, "build_model", lambda cfg: pytest.fail(cfg.MODEL.DEVICE))
    with pytest.raises(pytest.fail.Exception, match="cuda:1"):
        detectron2_engine.load(layout.IMAGES, settings, 2, settings.predict, runtime)


def test_weights_that_cannot_be_loaded(dataset, tiny, tmp_path):
    (tmp_path / "weights.pth").write_text("nothing")
    labels = read_labels(layout.pseudo_labels("irnet"), layout.IMAGES, tiny.train)
    from stages.runtime.settings import RuntimeSettings

    with pytest.raises(UserError, match=r"detector.detectron2.weights: .*weights.pth cannot be loaded"):
        detectron2_engine.train(labels, change(tiny, weights=str(tmp_path / "weights.pth")), 0,
                                RuntimeSettings(device="cpu"), tmp_path)


def test_stages_train_resume_and_predict(dataset, monkeypatch):
    path = write_params("detectron2", steps=5, checkpoint_seconds=1e-9)
    train.main(path)
    folder = layout.method_models("irnet") / "detector"
    assert {item.name for item in folder.iterdir()} == {"model.pth", "settings.json", "curves"}
    assert (folder / "curves/plots/metrics/loss_rpn_cls.tsv").read_text().startswith("step\tloss_rpn_cls\n4\t")
    whole = torch.load(folder / "model.pth", weights_only=True)["model"]
    (folder / "model.pth").unlink()

    step, calls = detectron2_engine.SimpleTrainer.run_step, []

    def dying(self):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(detectron2_engine.SimpleTrainer, "run_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train.main(path)
    monkeypatch.setattr(detectron2_engine.SimpleTrainer, "run_step", step)
    train.main(path)
    again = torch.load(folder / "model.pth", weights_only=True)["model"]
    assert all(torch.equal(whole[name], again[name]) for name in whole)

    predict.main(path)
    results = json.loads(layout.predictions("irnet").read_text())
    assert {item["category_id"] for item in results} <= {7, 90}
    assert all(item["segmentation"]["size"] == [HEIGHT, WIDTH] for item in results)


def test_a_preset_for_gpus_is_tried_out_on_a_cpu(dataset, tiny, monkeypatch, capsys):
    from stages.runtime.settings import RuntimeSettings

    trained = []
    labels = read_labels(layout.pseudo_labels("irnet"), layout.IMAGES, tiny.train)
    monkeypatch.setattr(detectron2_engine, "_train", lambda *arguments: trained.append(arguments))
    for precision, said in (("bf16-mixed", "it trains in 32-true here"), ("32-true", "")):
        runtime = RuntimeSettings(device="cpu", precision=precision)
        detectron2_engine.train(labels, change(tiny), 0, runtime, layout.IMAGES)
        assert said in capsys.readouterr().out
    assert len(trained) == 2


def test_predictions_are_made_in_single_precision(tiny):
    """Where the walk asks for mixed precision, too: the corners of boxes would be rounded."""
    torch.manual_seed(0)
    model = detectron2_engine.build_model(detectron2_engine.config(tiny, 2, "cpu")).eval()
    predictor = detectron2_engine.Predictor(model, True, tiny.predict)
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    single = predictor(image)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = predictor(image)
    assert len(single) == 4
    for one, other in zip(single, mixed, strict=True):
        assert one["score"] == other["score"] and one["label"] == other["label"]
        assert np.array_equal(one["box_xyxy"], other["box_xyxy"]) and np.array_equal(one["mask"], other["mask"])


@pytest.mark.parametrize(("precision", "device", "trainer", "kind"), [
    ("32-true", "cuda", "SimpleTrainer", None), ("bf16-mixed", "cuda", "AMPTrainer", torch.bfloat16),
    ("16-mixed", "cuda", "AMPTrainer", torch.float16), ("bf16-mixed", "cpu", "SimpleTrainer", None)])
@pytest.mark.filterwarnings("ignore:.*GradScaler.*")
def test_mixed_precision_is_for_gpus(precision, device, trainer, kind):
    """On a CPU its trainer for it refuses to take a step."""
    layer = torch.nn.Linear(1, 1)
    made = detectron2_engine._trainer(layer, torch.optim.SGD(layer.parameters(), 0.1), precision, device)
    assert type(made).__name__ == trainer and getattr(made, "precision", None) == kind


def test_coco_evaluator_on_known_masks(tmp_path):
    images = [{"id": 5, "file_name": "5.png", "width": WIDTH, "height": HEIGHT},
              {"id": 6, "file_name": "6.png", "width": WIDTH, "height": HEIGHT}]
    masks = [(5, 90, square(4, 6, 12)), (5, 7, square(20, 26, 14)), (6, 90, square(10, 10, 12)),
             (6, 200, square(0, 0, 4))]
    truth = tmp_path / "truth.json"
    coco.write_instances(truth, images, CATEGORIES, [
        {"image_id": image, "category_id": category, "segmentation": mask} for image, category, mask in masks])
    results = [{"image_id": image, "category_id": category, "segmentation": rle.encode(mask),
                "bbox": rle.bbox(rle.encode(mask)), "score": 0.9} for image, category, mask in masks[:2]]
    found = detectron2_engine.coco_evaluator_ap(truth, results)
    # Class 7 is found whole; of class 90 one of two is, so its precision is 1 up to a recall of one half.
    assert found["AP-box"] == pytest.approx(100)
    assert found["AP-disc"] == pytest.approx(100 * 51 / 101)
    assert found["AP50"] == pytest.approx((100 + 100 * 51 / 101) / 2)
