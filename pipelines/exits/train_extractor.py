"""Warm up the similarity extractor with the MIL projection loss on boxes (section 3.2.1, eq. 1).

Reads data/annotations/train_weak.json and data/dataset/images; writes models/exits/extractor/ (weights.pt, curves/).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.exits.settings import ExitsSettings
from stages.runtime import distributed, layout
from stages.runtime.files import atomic_path
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

EXTRACTOR = layout.method_models("exits") / "extractor"


def main(params: Path) -> None:
    """Train and publish; without epochs the weights are those that it starts from."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, exits=ExitsSettings)
    distributed.launch("pipelines.exits.train_extractor", params, settings.runtime.processes)
    import torch

    from pipelines.exits.losses import projection_loss
    from pipelines.exits.network import Generator
    from pipelines.exits.objects import read_images, trainable
    from pipelines.exits.samples import RandomCrops
    from stages.runtime import devices, seeds, training

    crops, chosen = settings.exits.crops, settings.exits.extractor
    objects = trainable(read_images(layout.WEAK["train"])[0], crops.min_area)
    with Work(__file__, [layout.IMAGES, layout.WEAK["train"]],
              [settings.seed, crops, chosen]) as work:
        torch.manual_seed(seeds.entropy(settings.seed, "exits", "extractor"))
        model = Generator(chosen.encoder, crops.side, chosen.mask_stride)
        if chosen.epochs:
            optimizer = training.make_optimizer(
                "adamw", model.groups(chosen.learning_rate * chosen.batch_size, chosen.encoder_factor),
                chosen.learning_rate * chosen.batch_size, chosen.weight_decay)

            def losses(network: Any, batch: dict[str, Any]) -> dict[str, Any]:
                return {"mil": projection_loss(network(batch["image"], batch["box"]), batch["inside"]).mean()}

            model = training.fit(
                model.to(devices.resolve(settings.runtime.device)), losses,
                RandomCrops(objects, crops, model.mask_cells), optimizer, epochs=chosen.epochs,
                batch_size=min(chosen.batch_size, len(objects)), schedule=training.SCHEDULES[chosen.schedule],
                folder=work.folder, seed=settings.seed, runtime=settings.runtime, description="extractor")
        if distributed.rank() == 0:
            folder = work.subfolder("extractor")
            with atomic_path(folder / "weights.pt") as temporary:
                torch.save({name: value.cpu() for name, value in model.state_dict().items()}, temporary)
            if chosen.epochs:
                work.path("curves").rename(folder / "curves")
        work.publish({"extractor": EXTRACTOR})


if __name__ == "__main__":
    run_stage(main, __doc__)
