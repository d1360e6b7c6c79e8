"""Train the pseudo label generator with point, MIL and CRF losses (section 3.2.3, eq. 6 to 10).

Reads data/annotations/train_weak.json, data/dataset/images and data/exits/points; writes models/exits/generator/
(weights.pt with the student and its EMA teacher, curves/).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.exits.propagate import POINTS
from pipelines.exits.settings import CrfSettings, ExitsSettings
from stages.runtime import distributed, layout
from stages.runtime.files import atomic_path
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

GENERATOR = layout.method_models("exits") / "generator"


def refined(masks: Any, images: Any, inside: Any, settings: CrfSettings) -> Any:
    """CRF(M_avg) of eq. 9, and nothing outside the box.

    Args:
        masks: (B, m, m) probabilities.
        images: (B, 3, s, s) uint8 crops, s a multiple of m.
        inside: (B, m, m) float, 1 inside the box.
        settings: of the mean-field.
    """
    from torch.nn import functional

    from stages.propagation.mean_field import mean_field

    small = functional.adaptive_avg_pool2d(images.float(), masks.shape[-2:])
    return inside * mean_field(
        masks * inside, small, iterations=settings.iterations, gaussian_xy=settings.gaussian_xy,
        gaussian_weight=settings.gaussian_weight, bilateral_xy=settings.bilateral_xy,
        bilateral_rgb=settings.bilateral_rgb, bilateral_weight=settings.bilateral_weight)


def with_scores(masks: Any, scores: Any, share: float) -> Any:
    """Masks (B, m, m) with a share of the propagation scores (B, N, N), the sigmoid of which is a probability.

    The scores are in units of 1 / N^2 and positive for foreground. Objects without points have scores of 0 only; their
    masks stay as they are.
    """
    from torch.nn import functional

    likely = functional.interpolate(scores[:, None].sigmoid(), masks.shape[-2:], mode="bilinear", align_corners=False)
    shares = share * scores.flatten(1).any(1).to(masks)[:, None, None]
    return masks + shares * (likely[:, 0] - masks)


def main(params: Path) -> None:
    """Train student and teacher, publish both."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, exits=ExitsSettings)
    distributed.launch("pipelines.exits.train_generator", params, settings.runtime.processes)
    import torch

    from pipelines.exits.losses import dice, overall_loss
    from pipelines.exits.network import Generator, Teacher
    from pipelines.exits.objects import read_images, trainable
    from pipelines.exits.samples import RandomCrops
    from stages.runtime import devices, seeds, training

    crops, chosen = settings.exits.crops, settings.exits.generator
    objects = trainable(read_images(layout.WEAK["train"])[0], crops.min_area)
    with Work(__file__, [POINTS, layout.IMAGES, layout.WEAK["train"]],
              [settings.seed, crops, chosen]) as work:
        torch.manual_seed(seeds.entropy(settings.seed, "exits", "generator"))
        device = devices.resolve(settings.runtime.device)
        student = Generator(chosen.encoder, crops.side, chosen.mask_stride).to(device)
        teacher = Teacher(student, chosen.ema)
        rate = chosen.learning_rate * chosen.batch_size
        optimizer = training.make_optimizer("adamw", student.groups(rate, chosen.encoder_factor), rate,
                                            chosen.weight_decay)
        samples = RandomCrops(objects, crops, student.mask_cells, dropout=chosen.dropout,
                              points=None if chosen.points == "none" else POINTS / "train",
                              pseudo=chosen.points == "retrieved", hide_scores=chosen.hide_scores)
        batch_size = min(chosen.batch_size, len(objects))
        steps = chosen.epochs * training.steps_per_epoch(len(objects), batch_size)

        def losses(network: Any, batch: dict[str, Any]) -> dict[str, Any]:
            images, boxes, inside, scores = batch["image"], batch["box"], batch["inside"], batch.get("scores")
            masks = network(images, boxes, scores)
            labels = batch.get("labels", torch.zeros_like(inside, dtype=torch.int8))
            point, mil = overall_loss(masks, labels, inside, chosen.mil_weight)
            terms = {"point": chosen.point_weight * point, "mil": chosen.point_weight * mil}
            if chosen.crf_weight > 0:
                with torch.no_grad():
                    average = (masks.detach() + teacher(images, boxes, scores)) / 2
                    if chosen.crf_scores > 0 and "likely" in batch:
                        average = with_scores(average, batch["likely"], chosen.crf_scores)
                    target = refined(average, images, inside, chosen.crf)
                ramp = min(1.0, int(teacher.steps) / max(chosen.crf_start * steps, 1))
                terms["crf"] = chosen.crf_weight * ramp * dice(masks, target).mean()
            return terms

        training.fit(student, losses, samples, optimizer, epochs=chosen.epochs, batch_size=batch_size,
                     schedule=training.SCHEDULES[chosen.schedule], folder=work.folder, seed=settings.seed,
                     runtime=settings.runtime, description="generator", extra_state={"teacher": teacher},
                     after_step=lambda step: teacher.follow(student))
        if distributed.rank() == 0:
            folder = work.subfolder("generator")
            state = {name: {key: value.cpu() for key, value in network.state_dict().items()}
                     for name, network in (("student", student), ("teacher", teacher.network))}
            with atomic_path(folder / "weights.pt") as temporary:
                torch.save(state, temporary)
            work.path("curves").rename(folder / "curves")
        work.publish({"generator": GENERATOR})


if __name__ == "__main__":
    run_stage(main, __doc__)
