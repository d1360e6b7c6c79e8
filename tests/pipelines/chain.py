"""What the tests of the methods' chains share."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
from pathlib import Path

from stages.prepare.annotate import annotate
from stages.prepare.settings import AnnotationSettings
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings


@contextlib.contextmanager
def working_in(folder: Path):
    """As ``contextlib.chdir``, which Python 3.10 does not have."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def mixed(source: Path, folder: Path, kinds: list[str], *parts: str) -> set[int]:
    """Copy a finished chain's data set and ``parts`` into ``folder``, and label two of its training images in full.

    Returns:
        The ids of the two.
    """
    for name in ("data/dataset", *parts):
        shutil.copytree(source / name, folder / name)
    chosen = [image["id"] for image in json.loads((folder / layout.TRUTH["train"]).read_text())["images"][1:3]]
    with working_in(folder), contextlib.redirect_stderr(io.StringIO()):
        annotate(AnnotationSettings(kinds=[*kinds, "masks"], masked_images=chosen), RuntimeSettings(workers=1))
    return set(chosen)


def assert_given(source: Path, folder: Path, method: str, full: set[int]) -> None:
    """The images labelled in full have the masks of the truth as labels, the others those of the chain in ``source``,
    and val has what the method predicts."""
    truth = json.loads((folder / layout.TRUTH["train"]).read_text())
    things = {category["id"] for category in truth["categories"] if category["isthing"]}
    made, before = (json.loads((place / layout.pseudo_labels(method)).read_text())["annotations"]
                    for place in (folder, source))
    expected = [(item["image_id"], item["category_id"], item["segmentation"], 1.0) for item in truth["annotations"]
                if item["image_id"] in full and item["category_id"] in things]
    assert expected
    assert [(item["image_id"], item["category_id"], item["segmentation"], item["score"]) for item in made
            if item["image_id"] in full] == expected
    kept = ("image_id", "category_id", "segmentation", "score")
    assert [[item[key] for key in kept] for item in made if item["image_id"] not in full] == [
        [item[key] for key in kept] for item in before if item["image_id"] not in full]
    assert [item["id"] for item in made] == list(range(1, len(made) + 1))
    val = layout.pseudo_labels(method, "val")
    if (source / val).exists():
        strip = [[{key: value for key, value in item.items() if key != "weak_id"}
                  for item in json.loads((place / val).read_text())["annotations"]] for place in (folder, source)]
        assert strip[0] == strip[1]
