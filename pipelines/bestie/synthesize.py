"""Labels of the training images from the instance network, and of val images without any annotation (section 3.2).

Reads data/annotations/{train,val}_weak.json (tags or points of train), data/dataset/images, models/bestie/retrained,
data/bestie/cues (points) and data/bestie/semantic (where `bestie.synthesis` makes labels without the network, or in
the foreground of the maps); writes data/bestie/pseudo_labels.json and data/bestie/pseudo_labels_val.json (COCO
instances) and data/bestie/figures.json, the method's own numbers: `instances_per_image` and `val_instances_per_image`.
The labels that the training kept at some moments go beside them, to data/bestie/moments.json, where `score` counts the
right ones.
Training images that are labelled in full have their given masks.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pipelines.bestie.infer_cues import CUES
from pipelines.bestie.infer_semantic import SEMANTIC
from pipelines.bestie.retrain import RETRAINED
from pipelines.bestie.settings import BestieSettings
from stages.labels.coco import image_entries, write_instances
from stages.labels.figures import figures_path, write_figures
from stages.labels.given import with_given_masks
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

MOMENTS = layout.method_data("bestie") / "moments.json"


def main(params: Path) -> None:
    """Every image on its own; then one file per split."""
    from pipelines.bestie.labelling import instance_inference
    from stages.cues.views import walk_images

    settings = load_settings(params, runtime=RuntimeSettings, bestie=BestieSettings)
    chosen = settings.bestie
    weak = {split: read_json(path) for split, path in layout.WEAK.items()}

    def collect(results: Path) -> dict[str, str | Path]:
        names = {split: layout.pseudo_labels("bestie", split).name for split in weak}
        figures: dict[str, float] = {}
        for split, content in weak.items():
            annotations = [{"image_id": image["id"], **annotation} for image in content["images"]
                           for annotation in read_json(results / split / f"{layout.image_key(image)}.json")
                           if annotation["score"] >= chosen.synthesis.threshold]
            if split == "train":
                annotations = with_given_masks(annotations, content)
            write_instances(results.parent / names[split], image_entries(content["images"]), content["categories"],
                            annotations)
            figures[f"{'' if split == 'train' else 'val_'}instances_per_image"] = round(
                len(annotations) / max(len(content["images"]), 1), 3)
        moments = results.parent / "moments.json"
        shutil.copyfile(RETRAINED / "moments.json", moments)
        write_figures(results.parent / "figures.json", figures, measured=[results.parent / names["val"], moments],
                      elsewhere={SEMANTIC.name: SEMANTIC})
        return {**{name: layout.pseudo_labels("bestie", split) for split, name in names.items()},
                "figures.json": figures_path("bestie"), "moments.json": MOMENTS}

    walk_images(__file__, params, settings.runtime, {split: content["images"] for split, content in weak.items()},
                build=lambda device: instance_inference(RETRAINED, SEMANTIC, CUES, weak["train"], chosen, device),
                inputs=[*layout.WEAK.values(), layout.IMAGES, SEMANTIC, CUES, RETRAINED / "weights.pt",
                        RETRAINED / "moments.json"],
                parameters=[chosen.inference, chosen.synthesis, chosen.cues.source, chosen.network], output=None,
                description="instances", suffix=".json", finish=collect)


if __name__ == "__main__":
    run_stage(main, __doc__)
