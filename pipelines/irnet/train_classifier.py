"""Train the multi-label classifier whose attention maps are IRNet's seeds (section 3).

Reads data/annotations/{train,val}_weak.json (tags) and data/dataset/images; writes models/irnet/classifier/
(weights.pt, classifier.json, curves/) and metrics/irnet_classifier.json (mean average precision on train and val).
"""

from __future__ import annotations

from pathlib import Path

from pipelines.irnet.settings import ClassifierSettings, IRNetSettings
from stages.runtime import distributed, layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

CLASSIFIER = layout.method_models("irnet") / "classifier"
METRICS = layout.METRICS / "irnet_classifier.json"


def main(params: Path) -> None:
    """Train, measure, publish."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, irnet=IRNetSettings)
    distributed.launch("pipelines.irnet.train_classifier", params, settings.runtime.processes)
    import torch

    from stages.cues.classifier import Classifier
    from stages.cues.train import TaggedImages, save_classifier, tag_losses
    from stages.labels.coco import category_indices
    from stages.runtime import seeds, training

    chosen: ClassifierSettings = settings.irnet.classifier
    weak = {split: read_json(path) for split, path in layout.WEAK.items()}
    category_ids = sorted(category_indices(weak["train"]["categories"], things_only=True))
    tagged = [image for image in weak["train"]["images"] if set(image["tags"]) & set(category_ids)]
    if not tagged:
        raise UserError(f"{layout.WEAK['train']}: no image has a tag of a thing class; IRNet learns from tags, "
                        f"so the annotations need them (annotations.kinds: [tags])")
    with Work(__file__, [*layout.WEAK.values(), layout.IMAGES], [settings.seed, chosen]) as work:
        torch.manual_seed(seeds.entropy(settings.seed, "irnet", "classifier"))
        model = Classifier(chosen.backbone, len(category_ids), chosen.dropout, chosen.logit_scale)
        optimizer = training.make_optimizer(
            chosen.optimizer,
            [{"params": model.backbone.parameters(), "lr": chosen.learning_rate * chosen.backbone_factor},
             {"params": model.head.parameters(), "lr": chosen.learning_rate}],
            chosen.learning_rate, chosen.weight_decay)
        samples = TaggedImages(layout.IMAGES, weak["train"]["images"], category_ids, chosen.augment)
        model = training.fit(
            model, tag_losses, samples, optimizer, epochs=chosen.epochs, batch_size=chosen.batch_size,
            schedule=training.SCHEDULES[chosen.schedule], folder=work.folder, seed=settings.seed,
            runtime=settings.runtime, description="classifier")
        if distributed.rank() == 0:
            save_classifier(work.subfolder("classifier"), model, category_ids)
            (work.path("curves")).rename(work.path("classifier") / "curves")
            metrics = _metrics(model, weak, category_ids, chosen.augment.long_side)
            write_json(work.path("metrics.json"), metrics, indent=2)
        work.publish({"classifier": CLASSIFIER, "metrics.json": METRICS})


def _metrics(model, weak, category_ids, long_sides) -> dict:  # type: ignore[no-untyped-def]
    """Mean average precision in percent on each split, and per class on val; tags are the truth here.

    Images are looked at in the middle of the sizes that training showed, where it gave a range.
    """
    from stages.cues.train import mean_average_precision, multi_hot, probabilities

    names = {category["id"]: category["name"] for category in weak["train"]["categories"]}
    long_side = None if long_sides is None else sum(long_sides) // 2
    found: dict = {}
    for split, content in weak.items():
        scores = probabilities(model, layout.IMAGES, content["images"], long_side)
        classes = mean_average_precision(scores, multi_hot(content["images"], category_ids))
        if not classes:
            found[split] = {"available": 0, "reason": f"no image of {layout.WEAK[split]} has a tag of a thing class"}
            continue
        found[split] = {"map": round(100 * sum(classes.values()) / len(classes), 3)}
        if split == "val":
            found[split]["per_class"] = {names[category_ids[index]]: round(100 * value, 3)
                                         for index, value in classes.items()}
    return found


if __name__ == "__main__":
    run_stage(main, __doc__)
