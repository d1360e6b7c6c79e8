"""Labels of train from the given boxes, and of val from detected ones: what every pixel is part of (section 3.5).

Reads data/annotations, data/dataset/images, data/panoptic/boxes, data/panoptic/detections.json and
models/panoptic/instances; writes data/panoptic/pseudo_labels.json and pseudo_labels_val.json (COCO instances, stuff
among them; every label has `scores`, detection and confidence, of which `score` is the chosen one),
data/panoptic/panoptic_{train,val}.json with PNGs in the folders of these names (COCO panoptic), data/panoptic/semantic
(PNGs of category ids, of both splits) and data/panoptic/figures.json: `instances_per_image` and
`val_instances_per_image`, of things, and `undecided`, the share of the pixels that the last labels of the training
images leave open [%].
"""

from __future__ import annotations

from pathlib import Path

from pipelines.panoptic.detect import DETECTIONS
from pipelines.panoptic.refine import ROUNDS
from pipelines.panoptic.segment_boxes import BOXES
from pipelines.panoptic.settings import PanopticSettings
from pipelines.panoptic.supervision import classes_of
from pipelines.panoptic.train_instances import INSTANCES
from stages.labels.coco import Entry, annotations_by_image, image_entries, is_thing, write_instances
from stages.labels.figures import figures_path, write_figures
from stages.labels.given import with_given_masks
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

SEMANTIC = layout.method_data("panoptic") / "semantic"
PANOPTIC = {split: layout.method_data("panoptic") / f"panoptic_{split}.json" for split in ("train", "val")}


def main(params: Path) -> None:
    """Every image on its own; then the files of both splits."""
    from pipelines.panoptic.labelling import panoptic_inference
    from pipelines.panoptic.panoptic_files import undecided_share, write_split
    from stages.cues.views import walk_images

    settings = load_settings(params, runtime=RuntimeSettings, panoptic=PanopticSettings)
    chosen = settings.panoptic
    weak = {split: read_json(path) for split, path in layout.WEAK.items()}
    classes = classes_of(weak["train"]["categories"])
    detections: dict[int, list[Entry]] = {}
    for result in read_json(DETECTIONS):
        detections.setdefault(result["image_id"], []).append(result)
    things = {category["id"] for category in weak["train"]["categories"] if is_thing(category)}
    # Ids may repeat from one split to the other; then train alone has semantic maps.
    apart = not {image["id"] for image in weak["train"]["images"]} & {image["id"] for image in weak["val"]["images"]}

    def collect(results: Path) -> dict[str, str | Path]:
        places: dict[str, str | Path] = {"semantic": SEMANTIC, "figures.json": figures_path("panoptic")}
        figures: dict[str, float] = {}
        for split, content in weak.items():
            rows = [{"image_id": image["id"], "score": row["scores"][chosen.synthesis.score],
                     **{key: value for key, value in row.items() if key != "box"}}
                    for image in content["images"]
                    for row in read_json(results / split / f"{layout.image_key(image)}.json")]
            if split == "train":
                rows = with_given_masks(rows, content, stuff=True)
            name = layout.pseudo_labels("panoptic", split).name
            write_instances(results.parent / name, image_entries(content["images"]), content["categories"], rows)
            write_split(results.parent / PANOPTIC[split].name, content["images"], content["categories"], rows,
                        results.parent / "semantic" if apart or split == "train" else None, classes.background)
            places |= {name: layout.pseudo_labels("panoptic", split), PANOPTIC[split].name: PANOPTIC[split],
                       PANOPTIC[split].stem: PANOPTIC[split].with_suffix("")}
            count = sum(row["category_id"] in things and not row.get("iscrowd", 0) for row in rows)
            figures[f"{'' if split == 'train' else 'val_'}instances_per_image"] = round(
                count / max(len(content["images"]), 1), 3)
        last = ROUNDS / str(chosen.rounds.rounds)
        figures["undecided"] = round(100 * undecided_share(last, weak["train"]["images"], classes.category_ids), 3)
        write_figures(results.parent / "figures.json", figures, measured=[
            results.parent / place for place in places if place != "figures.json"])
        return places

    walk_images(__file__, params, settings.runtime, {split: content["images"] for split, content in weak.items()},
                build=lambda device: panoptic_inference(
                    INSTANCES, BOXES, annotations_by_image(weak["train"]), detections, classes, chosen, device),
                inputs=[*layout.WEAK.values(), layout.IMAGES, BOXES, ROUNDS, DETECTIONS, INSTANCES / "weights.pt"],
                parameters=[chosen.inference, chosen.synthesis, chosen.instances.head], output=None,
                description="panoptic output", suffix=".json", finish=collect)


if __name__ == "__main__":
    run_stage(main, __doc__)
