"""Labels of train from the given boxes, and of val from detected ones: what every pixel is part of (section 3.5).

Reads data/annotations, data/dataset/images, data/panoptic/{boxes,cues,rounds,detections.json} and
models/panoptic/instances; writes data/panoptic/pseudo_labels.json and pseudo_labels_val.json (COCO instances, stuff
among them; every label has `scores`, detection and confidence, of which `score` is the chosen one), panoptic.json and
panoptic_val.json beside them with PNGs in the folders of these names (COCO panoptic), data/panoptic/semantic (PNGs of
category ids, of both splits), data/panoptic/maps.json, the label maps that `score` compares with the truth, and
data/panoptic/figures.json: `undecided`, the share of the pixels that the last labels of the training images leave open
[%], who made the proposals (data/proposals), and `instances_per_image` and `val_instances_per_image`, of things.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.panoptic.box_cues import SOURCES
from pipelines.panoptic.cues import PANOPTIC
from pipelines.panoptic.detect import DETECTIONS
from pipelines.panoptic.join_cues import CUES
from pipelines.panoptic.refine import ROUNDS
from pipelines.panoptic.segment_boxes import BOXES
from pipelines.panoptic.settings import PanopticSettings
from pipelines.panoptic.supervision import classes_of
from pipelines.panoptic.train_instances import INSTANCES
from stages.labels.coco import Entry, annotations_by_image, image_entries, is_thing, write_instances
from stages.labels.figures import figures_path, write_figures
from stages.labels.given import with_given_masks
from stages.labels.map_list import LabelMap, write_map_list
from stages.labels.panoptic import png_folder
from stages.proposals.propose import PROPOSALS
from stages.proposals.provider import used_proposals
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

DATA = layout.method_data("panoptic")
SEMANTIC = DATA / "semantic"
OUTPUT = {split: layout.panoptic("panoptic", split) for split in layout.WEAK}


def label_maps(rounds: int) -> list[LabelMap]:
    """What `score` compares with the truth beside the labels: the cues of boxes and of stuff, the labels of all rounds,
    and the semantic map of the panoptic output."""
    cues, kept = CUES.relative_to(DATA), ROUNDS.relative_to(DATA)
    return [*(LabelMap(name, str(cues / name)) for name in (*SOURCES[::-1], "stuff")),
            *(LabelMap(f"round_{number}", str(kept / str(number)), str(kept / str(number) / PANOPTIC), number)
              for number in range(rounds + 1)), LabelMap("network", SEMANTIC.name)]


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
        places: dict[str, str | Path] = {"semantic": SEMANTIC}
        details: dict[str, float] = {}
        for split, content in weak.items():
            rows = [{"image_id": image["id"], "score": row["scores"][chosen.synthesis.score],
                     **{key: value for key, value in row.items() if key != "box"}}
                    for image in content["images"]
                    for row in read_json(results / split / f"{layout.image_key(image)}.json")]
            if split == "train":
                rows = with_given_masks(rows, content, stuff=True)
            name = layout.pseudo_labels("panoptic", split).name
            write_instances(results.parent / name, image_entries(content["images"]), content["categories"], rows)
            output = OUTPUT[split]
            write_split(results.parent / output.name, content["images"], content["categories"], rows,
                        results.parent / "semantic" if apart or split == "train" else None, classes.background)
            places |= {name: layout.pseudo_labels("panoptic", split), output.name: output,
                       png_folder(output).name: png_folder(output)}
            count = sum(row["category_id"] in things and not row.get("iscrowd", 0) for row in rows)
            details[f"{'' if split == 'train' else 'val_'}instances_per_image"] = round(
                count / max(len(content["images"]), 1), 3)
        last = ROUNDS / str(chosen.rounds.rounds)
        undecided = round(100 * undecided_share(last, weak["train"]["images"], classes.category_ids), 3)
        write_map_list(results.parent / "maps.json", label_maps(chosen.rounds.rounds))
        places["maps.json"] = layout.label_maps("panoptic")
        write_figures(results.parent / "figures.json", {"undecided": undecided},
                      [results.parent / place for place in places],
                      elsewhere={folder.name: folder for folder in (CUES, ROUNDS)}, details=details,
                      proposals=used_proposals(PROPOSALS, weak["val"]["images"]))
        return {**places, "figures.json": figures_path("panoptic")}

    walk_images(__file__, params, settings.runtime, {split: content["images"] for split, content in weak.items()},
                build=lambda device: panoptic_inference(
                    INSTANCES, BOXES, annotations_by_image(weak["train"]), detections, classes, chosen, device),
                inputs=[*layout.WEAK.values(), layout.IMAGES, BOXES, CUES, ROUNDS, DETECTIONS,
                        INSTANCES / "weights.pt"],
                parameters=[chosen.inference, chosen.synthesis, chosen.instances.head], output=None,
                description="panoptic output", suffix=".json", finish=collect)


if __name__ == "__main__":
    run_stage(main, __doc__)
