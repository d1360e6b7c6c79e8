"""Spoil valid inputs: values of JSON and YAML, masks, and bytes of any file."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from random import Random
from typing import Any

from stages.runtime.files import is_finite

HUGE = "1" + "0" * 400
"""An integer that no float holds. JSON is written by hand where it stands for a number."""

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63,
    2**64, 10**30, 10**400, -(10**400), 0.5, -0.0, 1.0, 1.5, 1e9, -1e9, 1e-300, 1e308, math.nan, math.inf, -math.inf,
    "",
    " ", "a", "0", "1", "null", "\u00fc\u4e2d", "\ud800", "a\udfff", "\0", "a\nb", "\x1b[31m", "a" * 300, "../out.png",
    "/etc/passwd", ".", "..", "~", "a" * 5000, [], {}, [[]], [None], [0], [1, 2], [1, 2, 3, 4], {"a": 1}, {"size": [1,
                                                                                                                    1]},
    [0.5, 1e400], ["x"], [[1, 2], [3, 4]], b"raw"]


def odd_value(random: Random, value: Any = None) -> Any:
    """Something else in the place of ``value``, often something near to it."""
    near: list[Any] = [[value], str(value)[:200]]
    if isinstance(value, bool):
        near += [int(value), not value]
    elif is_finite(value) and abs(value) < 1e15:
        near += [value + 1, value - 1, -value, value * 2, float(value), value * 1000, value + 0.5, int(value)]
    elif isinstance(value, str):
        near += [value + random.choice(["\0", " ", "\n", "\ud800", "/", ".png", "é"]), value[:-1], value.upper(),
                 "./" + value, "../" + value, value * 50]
    elif isinstance(value, list):
        near += [value[::-1], value + value, value[:-1], value[:1], tuple(value) and value[0] if value else None]
    elif isinstance(value, dict):
        near += [list(value), {**value, "": 1}, list(value.values())]
    if random.random() < 0.05:
        nested: Any = value
        for _ in range(random.choice([3, 60, 150])):
            nested = [nested] if random.random() < 0.5 else {"a": nested}
        return nested
    return copy.deepcopy(random.choice(near if random.random() < 0.4 else ODD))


def places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key or index) of every value below a tree of dicts and lists."""
    found: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            found.append((node, key))
            pending.append(value)
    return found


def spoil_tree(random: Random, tree: Any, only: str | None = None) -> str:
    """Change one value of a tree in place.

    Args:
        random: of the case.
        tree: of dicts and lists.
        only: change a value of this key, if there is one.

    Returns:
        What was done.
    """
    found = places(tree)
    chosen = [place for place in found if place[1] == only] or found
    if not chosen:
        return "nothing"
    # By key first, so that long lists of numbers do not take all the attention.
    key = random.choice(sorted({str(place[1]) if isinstance(place[1], str) else "#" for place in chosen}))
    node, place = random.choice([item for item in chosen if (item[1] if isinstance(item[1], str) else "#") == key])
    value = node[place]
    way = random.randrange(10)
    if way < 5:
        node[place] = odd_value(random, value)
        return f"{place} := {_short(node[place])}"
    if way == 5:
        del node[place]
        return f"without {place}"
    if way == 6:  # a value of the same key from elsewhere: moved ids, names and masks
        others = [other[other_key] for other, other_key in found if other_key == place and other is not node]
        node[place] = copy.deepcopy(random.choice(others)) if others else odd_value(random, value)
        return f"{place} := {_short(node[place])} from elsewhere"
    if way == 7 and isinstance(node, dict):
        node[random.choice([*map(str, node), "extra", "", place + " ", "Id"])] = node.pop(place)
        return f"{place} under another name"
    if way == 8 and isinstance(node, list):
        node.insert(random.randrange(len(node) + 1), copy.deepcopy(value))
        return f"item {place} twice"
    other, other_key = random.choice(found)
    node[place] = copy.deepcopy(other[other_key])  # a copy first: one may hold the other
    return f"{place} := what {other_key} is"


def spoil_segmentation(random: Random, value: Any, height: int, width: int) -> Any:
    """Another segmentation in the place of one: extreme polygons, RLEs whose runs do not fit, strings cut or too
    long; some of them are right."""
    far = random.choice([0, -1, width, height, 1e-9, width * 1.5, 2 * width, -2.0 * width, 1e5, 1e9, -1e9, 1e300, 1e308,
                         10**400, math.nan, math.inf, 2**31, 2**63, None, "1", True, [1]])
    runs = random.choice([[height * width], [0, height * width], [height * width - 3, 3], [5, 0, 0, height * width - 5],
                          [0, 0, height * width], [height * width + 1], [2**31, 2**31], [-1, height * width + 1], [],
                          [3, 0, 4, 0, height * width - 7], [10**12], [1.0, height * width - 1.0], ["1"], [True] * 4,
                          [10**400], [1] * (height * width), [0] * 50 + [height * width], [2, 3, 0, 4,
                                                                                           height * width - 9],
                          [2**32 + height * width]])
    texts = ["", "0", "P" * 40 + "0", "o" * 5000, "\ud800", "é", "0O", "1" * 400, "`", "PPPPPPP0", "_" * 7, "oooooo1",
             "\0"]
    size = random.choice([[height, width]] * 6 + [[width, height], [10**5, 10**5], [0, 0], [-1, -1], None, "ab",
                                                  [height],
                                                  [float(height), float(width)], [height, width, 1], [str(height),
                                                                                                      width]])
    way = random.randrange(7)
    if way == 0 and isinstance(value, list) and any(isinstance(item, list) and item for item in value):
        changed = copy.deepcopy(value)
        polygon = random.choice([item for item in changed if isinstance(item, list) and item])
        for _ in range(random.choice([1, 1, 2, len(polygon)])):
            polygon[random.randrange(len(polygon))] = far
        return changed
    if way == 1:
        count = random.choice([0, 1, 2, 3, 4, 6, 7, 30, 3000])
        return [[random.uniform(-0.3, 1.3) * (height if place % 2 else width) for place in range(2 * count)]
                for _ in range(random.choice([1, 1, 2, 5]))]
    if way == 2:
        return {"size": size, "counts": runs}
    if way == 3:
        return {"size": size, "counts": random.choice(texts)}
    if way == 4 and isinstance(value, dict) and isinstance(value.get("counts"), str):
        counts = list(value["counts"])
        for _ in range(random.choice([1, 1, 2, 5])):
            place = random.randrange(len(counts) + 1)
            counts[place:place + random.randrange(2)] = chr(random.randrange(40, 120))
        return {**value, "counts": "".join(counts)}
    if way == 5:
        packed = [random.randrange(32) | 32 * (random.random() < 0.3) for _ in range(random.choice([1, 2, 5, 40]))]
        return {"size": size, "counts": "".join(chr(48 + code) for code in packed)}
    return odd_value(random, value)


def to_json(random: Random, tree: Any) -> bytes:
    """A tree as JSON, now and then with what only a text can hold: keys given twice, numbers of many digits."""
    text = json.dumps(tree, default=lambda value: f"{value!r}")
    way = random.random()
    keys = list(re.finditer(r'"(\w+)": ', text))
    numbers = list(re.finditer(r"(?<=[ \[])-?\d+(\.\d+)?(?=[,\]}])", text))
    if way < 0.04 and keys:
        found = random.choice(keys)
        twice = f"{found[0]}{json.dumps(random.choice([1, None, 'x', []]))}, "
        text = text[:found.start()] + twice + text[found.start():]
    elif way < 0.1 and numbers:
        found = random.choice(numbers)
        new = random.choice(["9" * 5000, HUGE, "1e999", "-0", "01", "0x10", "+1", "NaN", "Infinity", "1_000", "1.",
                             "1e5",
                             found[0] + ".0", "[" * 3000, "{" * 20, '"', found[0] + "e0", "1E400", "-" + HUGE])
        text = text[:found.start()] + new + text[found.end():]
    content = text.encode("utf-8", "surrogatepass")
    if way > 0.97:
        content = random.choice([b"\xef\xbb\xbf" + content, text.encode("utf-16", "surrogatepass"), b"", b"null",
                                 b"[" * 100_000, b'{"a":' * 50_000, content + content, content + b"\0",
                                 b"\n" + content])
    return content


def spoil_bytes(random: Random, content: bytes) -> bytes:
    """Flipped, cut, doubled, moved or inserted bytes."""
    data = bytearray(content)
    for _ in range(random.choice([1, 1, 1, 2, 4, 16])):
        # Headers are short and say most, so the start gets half of the attention.
        top = len(data) if random.random() < 0.5 else min(len(data), 64)
        place, size = random.randrange(top + 1), random.choice([1, 1, 1, 2, 4, 4, 16, 200])
        way = random.randrange(8)
        if way < 3 and data:
            place = min(place, len(data) - 1)
            data[place] = random.choice([0, 1, 127, 128, 255, data[place] ^ 1 << random.randrange(8),
                                         random.randrange(256)])
        elif way == 3:
            data[place:place + size] = bytes(random.randrange(256) for _ in range(size))
        elif way == 4:
            del data[place:place + size]
        elif way == 5:
            data[place:place] = random.choice([b"\0", b"\xff", b"\xff" * size, b"\n", b"9" * size, data[:size]])
        elif way == 6:
            data[place:place + 4] = random.choice([0, 1, 2**16, 2**24, 2**31 - 1, 2**32 - 1]).to_bytes(
                4, random.choice(["little", "big"]))
        elif random.random() < 0.3:
            del data[place:]
    return bytes(data)


def spoil_file(random: Random, path: Path) -> str:
    """Spoil the bytes of a file."""
    path.write_bytes(spoil_bytes(random, path.read_bytes()))
    return f"bytes of {path.name}"


def _short(value: Any) -> str:
    return f"{value!r:.60}"
