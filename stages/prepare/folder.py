"""A plain folder of images and a table of tags: all that a person without any mask needs.

The table is CSV with the columns ``file_name`` and ``tags``; the tags of an image are separated by ``;`` and may be
empty. Classes are the tags in use; their ids are 1, 2, ... in the order of their names.
"""

from __future__ import annotations

import csv
from pathlib import Path

from stages.prepare.settings import DatasetSettings
from stages.prepare.sources import Source, SourceImage
from stages.runtime.errors import UserError, summarise


def parts(dataset: DatasetSettings) -> dict[str, tuple[Path, Path]]:
    """part -> (table, image folder)."""
    root = Path(dataset.root)
    default = root / "images" if (root / "images").is_dir() else root
    train_images = root / dataset.train_images if dataset.train_images else default
    found = {"train": (root / (dataset.train or "labels.csv"), train_images)}
    if dataset.val is not None:
        found["val"] = (root / dataset.val, root / dataset.val_images if dataset.val_images else train_images)
    return found


def needed_paths(dataset: DatasetSettings) -> list[Path]:
    """Root, tables and image folders."""
    return [Path(dataset.root), *(path for part in parts(dataset).values() for path in part)]


def read(dataset: DatasetSettings) -> Source:
    """Read the tables.

    Raises:
        UserError: a missing file or folder, or a table that is not as described above.
    """
    found = parts(dataset)
    tables = {}
    for part, (file, folder) in found.items():
        if not folder.is_dir():
            raise UserError(f"{folder}: no such image folder; set dataset.{part}_images (relative to dataset.root)")
        tables[part] = read_table(file)
    names = sorted({tag for table in tables.values() for tags in table.values() for tag in tags})
    if not names:
        raise UserError(f"{found['train'][0]}: no image has a tag; the column `tags` takes class names separated by ;")
    ids = {name: number for number, name in enumerate(names, start=1)}
    # One running number over both tables, so that an id means one image.
    numbers = {entry: number for number, entry in enumerate(
        sorted({(str(found[part][1]), name) for part, table in tables.items() for name in table}), start=1)}
    images = {part: [SourceImage(numbers[str(found[part][1]), name], name, str(found[part][1]),
                                 tags=tuple(sorted(ids[tag] for tag in tags)))
                     for name, tags in table.items()]
              for part, table in tables.items()}
    categories = [{"id": number, "name": name, "isthing": 1} for name, number in ids.items()]
    return Source(categories, images, {part: file for part, (file, _) in found.items()},
                  [file for file, _ in found.values()])


def read_table(file: Path) -> dict[str, list[str]]:
    """file_name -> tags, each once.

    Raises:
        UserError: up to ten problems with their lines.
    """
    try:
        with open(file, encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, strict=True)
            columns = reader.fieldnames or []
            if not {"file_name", "tags"} <= set(columns) or len(set(columns)) < len(columns):
                raise UserError(f"{file}: line 1: the columns file_name,tags were expected, each once, found "
                                f"{','.join(columns) or 'an empty file'}")
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; a table with the columns file_name,tags was expected") from None
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UserError(f"{file}: cannot be read as a UTF-8 CSV table ({error})") from None
    table: dict[str, list[str]] = {}
    problems = []
    for line, row in rows:
        name = (row["file_name"] or "").strip()
        if not name:
            problems.append(f"line {line}: a file_name was expected")
        elif name in table:
            problems.append(f"line {line}: {name} is listed twice; join its tags with ;")
        elif any("\n" in (value or "") or "\r" in (value or "") for key, value in row.items() if key is not None):
            problems.append(f"line {line}: the row of {name!r} runs over several lines; is a closing quote missing?")
        elif None in row:
            problems.append(f"line {line}: more columns than the first line has; separate tags by ; and not by a comma")
        else:
            table[name] = sorted({tag.strip() for tag in (row["tags"] or "").split(";")} - {""})
    if problems:
        raise UserError(summarise(problems, f"{file}: {len(problems)} problem(s); correct the file:"))
    return table
