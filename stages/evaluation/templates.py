"""The HTML templates beside this module, filled."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

LOADED_BY_NAME = ("stages/evaluation/style.css.j2", "stages/evaluation/tables.html.j2")
"""What every page takes in; its own template each page declares itself."""


def fill(template: str, **values: object) -> str:
    """The page that a template gives; a value that it wants and does not get is an error, and texts are escaped."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=StrictUndefined)
    return environment.get_template(template).render(**values)
