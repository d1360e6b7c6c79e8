"""Train the instance network anew on labels that the trained one makes, as often as is wanted (section 4.5, table 5).

Reads models/bestie/refiner, data/annotations/train_weak.json (images, tags or points), data/dataset/images,
data/bestie/cues and data/bestie/semantic; writes models/bestie/retrained/, the same files of the last network. With
`bestie.retraining.iterations: 0`, the method as published, those of the first are handed on without their curves. A
killed run goes on where it was, also with another number of iterations; after its end one iteration more begins with
the first.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.bestie.infer_cues import CUES
from pipelines.bestie.infer_semantic import SEMANTIC
from pipelines.bestie.settings import BestieSettings
from pipelines.bestie.train_refiner import REFINER
from stages.runtime import distributed, layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.skipping import hand_on
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

RETRAINED = layout.method_models("bestie") / "retrained"


def main(params: Path) -> None:
    """Label and train, once for every iteration."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, bestie=BestieSettings)
    chosen, runtime = settings.bestie, settings.runtime
    iterations = chosen.retraining.iterations
    if iterations == 0:
        hand_on(__file__, REFINER, RETRAINED, ["weights.pt", "refiner.json", "moments.json"])
        return
    from pipelines.bestie.retraining import retrain_once

    weak = read_json(layout.WEAK["train"])
    distributed.launch(__file__, params, runtime.processes)
    # Not the number of iterations: those that are done count, whatever it was when a run was killed.
    parameters = [settings.seed, runtime.precision, chosen.network, chosen.transfer, chosen.cues.source,
                  chosen.inference, chosen.retraining.threshold]
    with Work(__file__, [layout.WEAK["train"], layout.IMAGES, SEMANTIC, CUES, REFINER / "weights.pt",
                         REFINER / "refiner.json"], parameters) as work:
        trained = REFINER
        for number in range(1, iterations + 1):
            trained = retrain_once(work.path(str(number)), trained, SEMANTIC, CUES, weak, chosen, runtime,
                                   settings.seed, name=REFINER.parts[-2:], description=f"{work.stage} {number}")
        work.publish({f"{iterations}/result": RETRAINED})


if __name__ == "__main__":
    run_stage(main, __doc__)
