"""Train the classifier of peak response mapping, whose peaks are the points where only tags are given (table 1).

Reads data/annotations/train_weak.json (tags) and data/dataset/images; writes models/wise/peaks/: weights.pt and
curves/, or, where the annotations have points (wise.cues.source), a note that there is nothing to train.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.wise.settings import WiseSettings
from stages.runtime import layout
from stages.runtime.files import write_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

PEAKS = layout.method_models("wise") / "peaks"


def main(params: Path) -> None:
    """Train, if points are to come from tags."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, wise=WiseSettings)
    if settings.wise.cues.source == "points":
        with Work(__file__, [], settings.wise.cues.source) as work:
            write_json(work.subfolder("result") / "unused.json", {"reason": "wise.cues.source is points"})
            work.publish({"result": PEAKS})
        return
    from pipelines.wise.peaks import train

    train(__file__, params, settings.wise.peaks, settings.runtime, settings.seed, PEAKS)


if __name__ == "__main__":
    run_stage(main, __doc__)
