"""Spoil the files of a data set as people and programs do: odd pictures, other names, tables and lists gone wrong."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from stages.labels import rle
from tests.fuzz.mutations import odd_value, spoil_bytes, spoil_file, spoil_segmentation, spoil_tree, to_json
from tests.fuzz.samples import HEIGHT, WIDTH, photograph, turned

PICTURES = (".png", ".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm")


def pick(random: Random, root: Path, *suffixes: str) -> Path:
    """A file below a folder, of these endings if any are given."""
    found = sorted(path for path in root.rglob("*") if path.is_file()
                   and (not suffixes or path.name.endswith(suffixes)))
    return random.choice(found)


def spoil_json(random: Random, path: Path, masks: float = 0.25) -> str:
    """Up to three changes of a COCO-like JSON, some of them of its masks."""
    if random.random() < 0.1:
        return spoil_file(random, path)
    content = json.loads(path.read_text())
    if random.random() < 0.3 and (isinstance(content, list) or "images" in content):
        done = [plausible(random, content) for _ in range(random.choice([1, 1, 3]))]
        path.write_text(json.dumps(content, indent=random.choice([None, 2]), ensure_ascii=random.random() < 0.5))
        return f"{path.name}: {'; '.join(done)}"
    done = []
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        rows = content if isinstance(content, list) else content.get("annotations") if isinstance(content, dict) else []
        rows = [row for row in rows if isinstance(row, dict) and "segmentation" in row] if isinstance(rows,
                                                                                                      list) else []
        if rows and random.random() < masks:
            row = random.choice(rows)
            old = row["segmentation"]
            size = old.get("size") if isinstance(old, dict) else None
            whole = isinstance(size,
                               list) and len(size) == 2 and all(type(side) is int and 0 < side < 999 for side in size)
            row["segmentation"] = spoil_segmentation(random, old, *(size if whole else (HEIGHT, WIDTH)))
            done.append(f"segmentation := {row['segmentation']!r:.60}")
        elif random.random() < 0.02:
            content = odd_value(random, content)
            done.append("all of it")
        else:
            done.append(spoil_tree(random, content, random.choice([None, None, "id", "image_id", "segmentation"])))
    path.write_bytes(to_json(random, content))
    return f"{path.name}: {'; '.join(done)}"


def plausible(random: Random, content: Any) -> str:
    """A change that leaves a COCO-like file one: most such files are accepted, and must then be taken as they are."""
    rows = content if isinstance(content, list) else content.get("annotations") or [{}]
    row, way = random.choice(rows), random.randrange(8)
    if way == 0:
        rows.remove(row)
        return "a row less"
    if way == 1:
        random.shuffle(rows)
        return "another order"
    if way == 2 and "iscrowd" in row:
        row["iscrowd"] = random.choice([0, 1, True, 1.0])
        return f"iscrowd := {row['iscrowd']}"
    if way == 3 and isinstance(content, dict):
        entry = random.choice([*content["images"], *content["categories"], *rows])
        entry[random.choice(["licence", "note", "supercategory", "coco_url_2"])] = random.choice([None, [1], "ü",
                                                                                                  {"a": 1}])
        return "a key more"
    if way == 4 and "score" in row:
        row["score"] = random.choice([0, 1, 0.5, -3, 1e-9, 7.5])
        return f"score := {row['score']}"
    if way == 5:
        rows.append({**row, "id": random.choice([0, 10**6, 2**63 - 1])})
        return "a row twice"
    old = row.get("segmentation")
    if way == 6 and isinstance(old, list) and old:
        row["segmentation"] = [[value + random.uniform(-1, 1) for value in polygon] for polygon in old]
        return "a polygon near by"
    if isinstance(old, dict):
        height, width = old["size"]
        mask = np.random.default_rng(random.randrange(2**32)).random((height, width)) < random.choice([0.02, 0.5, 1])
        mask[0, 0] |= random.random() < 0.7
        packed = rle.encode(mask)
        runs = rle.unpack_counts(packed["counts"])
        place = random.randrange(len(runs))
        parted = [*runs[:place], runs[place] - runs[place] // 2, 0, runs[place] // 2, *runs[place + 1:]]
        row["segmentation"] = random.choice([packed, {**packed, "counts": runs}, {**packed, "counts": parted}])
        return "another mask"
    return "nothing"


def spoil_picture(random: Random, path: Path) -> str:
    """Damage a picture, or put one of another kind or size in its place."""
    if random.random() < 0.5:
        return spoil_file(random, path)
    name, write = random.choice(sorted(ODD_PICTURES.items()))
    path.unlink()
    write(path)
    return f"{path.name} is {name}"


def _write(path: Path, pixels: np.ndarray, kind: str, mode: str | None = None, **options: object) -> None:
    image = Image.fromarray(pixels)
    with open(path, "wb") as file:  # the suffix says something else
        (image.convert(mode) if mode else image).save(file, format=kind, **options)


def _noise(height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(5).integers(0, 256, shape, np.uint8)


def _png(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _tiff16(width: int, height: int, rows: int) -> bytes:
    """16-bit RGB, which Pillow does not read."""
    data = np.random.default_rng(3).integers(0, 65536, (rows, min(width, 64), 3), np.uint16).astype("<u2").tobytes()
    tags = [(256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 1), (262, 3, 2), (273, 4, 8), (277, 3, 3),
            (278, 4, height), (279, 4, len(data)), (339, 3, 1)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + b"\0" * 4


ODD_PICTURES = {
    "grey": lambda path: _write(path, _noise(channels=1), "PNG"),
    "CMYK": lambda path: _write(path, _noise(), "JPEG", "CMYK"),
    "a palette": lambda path: _write(path, _noise(), "PNG", "P"),
    "black and white": lambda path: _write(path, _noise(), "PNG", "1"),
    "transparent": lambda path: _write(path, _noise(channels=4), "PNG"),
    "grey and transparent": lambda path: _write(path, _noise(channels=1), "PNG", "LA"),
    "16-bit grey": lambda path: _write(path, _noise(channels=1).astype(np.uint16) * 200, "PNG"),
    "floating point": lambda path: _write(path, _noise(channels=1).astype(np.float32), "TIFF"),
    "a GIF": lambda path: _write(path, _noise(), "GIF", "P"),
    "a bitmap": lambda path: _write(path, _noise(), "BMP"),
    "a portable pixmap": lambda path: _write(path, _noise(), "PPM"),
    "a WebP": lambda path: _write(path, _noise(), "WEBP"),
    "JPEG 2000": lambda path: _write(path, _noise(), "JPEG2000"),
    "an icon": lambda path: _write(path, _noise(16, 16), "ICO"),
    "one pixel": lambda path: _write(path, _noise(1, 1), "PNG"),
    "4 x 1600": lambda path: _write(path, _noise(1600, 4), "PNG"),
    "another size": lambda path: _write(path, _noise(HEIGHT + 1, WIDTH), "PNG"),
    "progressive": lambda path: _write(path, _noise(), "JPEG", progressive=True),
    "upside down": lambda path: turned(path, 1, 3) if path.suffix == ".jpg" else photograph(path, 1),
    "of EXIF orientation 9": lambda path: turned(path, 1, 9) if path.suffix == ".jpg" else photograph(path, 1),
    "of 40,000 x 40,000 pixels": lambda path: path.write_bytes(_png(40_000, 40_000, 1, 0, b"\0" * 100_000)),
    "of 0 x 0 pixels": lambda path: path.write_bytes(_png(0, 0)),
    "of 2^31 pixels": lambda path: path.write_bytes(_png(2**31 - 1, 1)),
    "16-bit TIFF": lambda path: path.write_bytes(_tiff16(WIDTH, HEIGHT, HEIGHT)),
    "TIFF of 30,000 x 30,000": lambda path: path.write_bytes(_tiff16(30_000, 30_000, 10)),
    "Radiance of 30,000 x 30,000": lambda path: path.write_bytes(
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 30000 +X 30000\n" + b"\2\2" * 5000),
    "float map of 30,000 x 30,000": lambda path: path.write_bytes(b"PF\n30000 30000\n-1.0\n" + b"\0" * 5000),
    "pixmap of 30,000 x 30,000": lambda path: path.write_bytes(b"P6\n30000 30000\n255\n" + b"\0" * 5000),
    "a BLP": lambda path: path.write_bytes(struct.pack("<4sIbbbbII", b"BLP2", 1, 9, 0, 0, 0, WIDTH,
                                                       HEIGHT) + b"\0" * 999),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no picture"),
    "an archive": lambda path: path.write_bytes(b"PK\3\4" + b"\0" * 60),
    "PostScript": lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 10\n%%EndComments\n"),
}
"""Name -> what writes it."""


def spoil_name(random: Random, root: Path) -> str:
    """Take a file away, put it elsewhere, or let something else stand under its name."""
    path = pick(random, root)
    way = random.randrange(8)
    if way == 0:
        path.unlink()
        return f"{path.name} is gone"
    if way == 1:
        path.unlink()
        path.mkdir()
        return f"{path.name} is a folder"
    if way == 2:
        outside = root.parent / "outside" / "secret.bin"
        shutil.copyfile(path, outside)
        path.unlink()
        path.symlink_to(outside)
        return f"{path.name} is a link to the outside"
    if way == 3:
        path.unlink()
        path.symlink_to(path.name)
        return f"{path.name} is a link to itself"
    if way == 4:
        shutil.rmtree(path.parent) if path.parent != root else path.unlink()
        return f"{path.parent.name} is gone"
    other = pick(random, root)
    if way == 5 and other != path:
        path.write_bytes(other.read_bytes())
        return f"{path.name} holds what {other.name} holds"
    new = path.with_name(random.choice([".a.tmp.png", "x" * 240 + path.suffix, path.name.upper(), f" {path.name}",
                                        f"{path.stem}\n{path.suffix}", "ü" + path.suffix, f"{path.name}.weakmask"]))
    path.rename(new)
    return f"{path.name} is {new.name!r}"


def spoil_text(random: Random, path: Path) -> str:
    """Spoil a table or a list: words, separators, lines, quotes, encodings."""
    text = path.read_text(encoding="utf-8")
    way = random.randrange(10)
    lines = text.split("\n")
    place = random.randrange(len(lines))
    words = lines[place].replace(",", " , ").split(" ")
    spot = random.randrange(len(words))
    odd = ["", "nan", "inf", "-1", "1e400", "9" * 400, '"', "'", ",", ";", ",,", "../x", "/etc/passwd", "\0", "x" * 300,
           "x" * 200_000, "ü", "\u2028", "\x1b[2J", "\r", "=1+1", ".", "..", "a/b/c", "Car", "tags", "file_name",
           "\ufeff"]
    if way < 4:
        words[spot] = random.choice([*odd, words[spot] * 2, f'"{words[spot]}', f'{words[spot]}"'])
        lines[place] = " ".join(words).replace(" , ", ",")
    elif way == 4:
        lines.insert(random.randrange(len(lines) + 1), lines[place])
    elif way == 5:
        del lines[place]
    elif way == 6:
        lines[place] = random.choice(odd)
    elif way == 7:
        lines[place] = lines[place] + random.choice([",x", ";", " ", "\t", '"', "\r", "\0"])
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    if way == 8:
        data = random.choice([b"", b"\xff\xfe" + text.encode("utf-16-le"), text.encode() + b"\xe9",
                              b"\xef\xbb\xbf" + data,
                              text.replace("\n", "\r\n").encode(), text.replace(",", ";").encode(), b"\n" * 10,
                              text.replace("\n", "\r").encode(), text.encode() * 2])
    elif way == 9:
        data = spoil_bytes(random, data)
    path.write_bytes(data)
    return f"{path.name}: {data[:60]!r}"


def spoil_labels(random: Random, path: Path) -> str:
    """Spoil a picture whose pixels are numbers: other numbers, sizes and modes, or damage."""
    way = random.randrange(6)
    if way < 2:
        return spoil_picture(random, path)
    with Image.open(path) as image:
        values, mode = np.array(image), image.mode
        palette = image.getpalette()
    rng = np.random.default_rng(random.randrange(2**32))
    top = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
    if way == 2:  # a few other pixels
        flat = values.reshape(-1)
        flat[rng.integers(0, flat.size, rng.integers(1, 6))] = rng.choice(
            [0, 1, 2, 255 % (top + 1), min(26001, top), min(10000, top), top, int(rng.integers(0, min(top,
                                                                                                      40_000) + 1))])
    elif way == 3:
        values = rng.permutation(np.unique(values))[np.searchsorted(np.unique(values), values)]
    elif way == 4:
        values = values[: rng.integers(1, len(values) + 1), : rng.integers(1, values.shape[1] + 1)]
    else:
        values = rng.choice([np.zeros_like(values), np.full_like(values, top)])
    image = Image.fromarray(np.ascontiguousarray(values))
    if mode == "P" and palette:
        image = image.convert("P")
        image.putpalette(palette)
        image.putdata(values.reshape(-1).tolist())
    image.save(path)
    return f"{path.name}: other numbers ({way})"
