"""Write metrics/report/index.html: settings, numbers, training curves and a gallery of this run, on one page.

The page is one file without scripts and without anything from elsewhere: open it, mail it, attach it to a review.
"""

from __future__ import annotations

from pathlib import Path

from stages.evaluation.page import render
from stages.evaluation.settings import ReportSettings
from stages.runtime import layout
from stages.runtime.files import write_text
from stages.runtime.settings import load_settings, read_yaml
from stages.runtime.stage import run_stage

REPORT = layout.METRICS / "report"


def main(params: Path) -> None:
    """Read what the run left and write the page."""
    settings = load_settings(params, method=str, report=ReportSettings)
    page = render(settings.method, settings.report, read_yaml(params))
    write_text(REPORT / "index.html", page)
    print(f"{REPORT / 'index.html'}: {len(page) / 1e6:.1f} MB")


if __name__ == "__main__":
    run_stage(main, __doc__)
