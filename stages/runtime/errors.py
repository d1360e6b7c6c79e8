"""The one kind of error that is meant for the user's eyes."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str) -> str:
    """A text for a terminal or a log: no control character of a file's name or content acts there, and all of it can be
    encoded; line feeds stay."""
    shown = "".join(character if character == "\n" or character.isprintable()
                    else character.encode("unicode_escape", "surrogatepass").decode("ascii") for character in text)
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


class UserError(Exception):
    """What is wrong (file, key or image id), what was expected, and what to do about it.

    Entry points print it as ``error: <message>`` and exit with status 1; a traceback means a defect of ours.
    """


def summarise(problems: Sequence[str], heading: str, shown: int = 10) -> str:
    """Join several problems into one message: the heading, the first ``shown`` of them, and how many follow."""
    lines = [f"  - {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  ... and {len(problems) - shown} more")
    return "\n".join([heading, *lines])
