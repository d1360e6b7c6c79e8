"""Train IRNet on the relations of pixels in confident areas (sections 4.3 to 4.5).

Reads data/irnet/relations, data/dataset/images and models/irnet/classifier (frozen backbone); writes
models/irnet/irnet/ (weights.pt, curves/). The mean displacement over the training images (section 4.3) is part of
the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.irnet.mine_relations import RELATIONS
from pipelines.irnet.settings import IRNetSettings
from pipelines.irnet.train_classifier import CLASSIFIER
from stages.runtime import distributed, layout
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_path, read_json, read_npz
from stages.runtime.progress import progress
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

IRNET = layout.method_models("irnet") / "irnet"


class RelatedImages:
    """Random views of images with their pseudo class maps on the grid."""

    def __init__(self, images: list[dict[str, Any]], settings: IRNetSettings) -> None:
        self.images, self.settings = images, settings

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, generator: Any) -> dict[str, Any]:
        """``image`` (3, crop, crop) uint8 and ``labels`` (crop / grid, crop / grid) uint8."""
        import torch

        from pipelines.irnet.losses import IGNORE
        from stages.cues.augment import random_view
        from stages.cues.train import to_tensor
        from stages.labels.images import read_rgb
        from stages.labels.maps import shrink_labels

        image = self.images[index]
        pixels = read_rgb(layout.IMAGES / image["file_name"])
        labels = read_npz(RELATIONS / f"{layout.image_key(image)}.npz")["labels"]
        view, cut, _ = random_view(pixels, labels, generator, self.settings.network.augment, IGNORE)
        return {"image": to_tensor(view), "labels": torch.from_numpy(shrink_labels(cut, self.settings.grid))}


def build(settings: IRNetSettings, device: Any) -> Any:
    """IRNet on the trained classifier's backbone, its own layers fresh."""
    from pipelines.irnet.network import IRNet
    from stages.cues.backbone import grid_of
    from stages.cues.train import classifier_backbone

    return IRNet(classifier_backbone(CLASSIFIER, device), settings.network, grid_of(settings.grid)).to(device)


def mean_displacement(model: Any, images: list[dict[str, Any]], settings: IRNetSettings) -> Any:
    """(2,) mean of D in cells over all pixels of the training images, or over the confident foreground."""
    import torch

    from stages.cues.train import to_tensor
    from stages.labels.images import read_rgb
    from stages.labels.maps import shrink_labels

    device = next(model.parameters()).device
    total, count = torch.zeros(2, dtype=torch.float64), 0
    for image in progress(images, len(images), "mean displacement"):
        pixels = to_tensor(read_rgb(layout.IMAGES / image["file_name"]))[None].to(device)
        field = model(pixels)[0][0].double().cpu()
        if settings.network.mean_over == "foreground":
            labels = read_npz(RELATIONS / f"{layout.image_key(image)}.npz")["labels"]
            labels = shrink_labels(labels, settings.grid)
            field = field[:, torch.from_numpy((labels > 0) & (labels < 255))]
        field = field.reshape(2, -1)
        total, count = total + field.sum(1), count + field.shape[1]
    return (total / max(count, 1)).float()


def main(params: Path) -> None:
    """Train, subtract the mean, publish."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, irnet=IRNetSettings)
    distributed.launch("pipelines.irnet.train_irnet", params, settings.runtime.processes)
    import torch

    from pipelines.irnet.losses import relation_losses
    from stages.labels.coco import category_indices
    from stages.runtime import devices, seeds, training

    chosen = settings.irnet.network
    weak = read_json(layout.WEAK["train"])
    things = set(category_indices(weak["categories"], things_only=True))
    images = [image for image in weak["images"] if things & set(image["tags"])]
    if not images:
        raise UserError(f"{layout.WEAK['train']}: no image has a tag of a thing class; IRNet learns from tags")
    with Work(__file__, [RELATIONS, layout.IMAGES, layout.WEAK["train"], CLASSIFIER / "weights.pt"],
              [settings.seed, chosen, settings.irnet.grid]) as work:
        torch.manual_seed(seeds.entropy(settings.seed, "irnet", "irnet"))
        model = build(settings.irnet, devices.resolve(settings.runtime.device))
        trained = [value for value in model.parameters() if value.requires_grad]
        optimizer = training.make_optimizer(chosen.optimizer, trained, chosen.learning_rate, chosen.weight_decay)

        def losses(network: Any, batch: dict[str, Any]) -> dict[str, Any]:
            displacement, boundary = network(batch["image"])
            terms = relation_losses(displacement, boundary, batch["labels"], chosen.radius)
            # The branches share nothing but the frozen backbone, so a factor on the displacement losses is the
            # same as a factor on the gradient which that branch receives (section 6.1).
            return {name: term * (chosen.displacement_factor if name.startswith("displacement") else 1.0)
                    for name, term in terms.items()}

        model = training.fit(
            model, losses, RelatedImages(images, settings.irnet), optimizer, epochs=chosen.epochs,
            batch_size=chosen.batch_size, schedule=training.SCHEDULES[chosen.schedule], folder=work.folder,
            seed=settings.seed, runtime=settings.runtime, description="IRNet")
        if distributed.rank() == 0:
            model.eval()
            with torch.no_grad():
                model.displacement_mean += mean_displacement(model, images, settings.irnet).to(
                    model.displacement_mean.device)
            folder = work.subfolder("irnet")
            own = {name: value.cpu() for name, value in model.state_dict().items() if not name.startswith("backbone.")}
            with atomic_path(folder / "weights.pt") as temporary:
                torch.save(own, temporary)
            work.path("curves").rename(folder / "curves")
        work.publish({"irnet": IRNET})


if __name__ == "__main__":
    run_stage(main, __doc__)
