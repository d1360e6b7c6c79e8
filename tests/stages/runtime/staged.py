"""Small stages that train, walk, or do both in turn, for test_train_stage.py and test_walk.py; run by torchrun too."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from linear_training import Points, losses, model

from stages.runtime import distributed, fingerprint
from stages.runtime.settings import RuntimeSettings, TrainingSettings
from stages.runtime.training import Training, train_network, train_stage
from stages.runtime.walk import walk, walk_stage
from stages.runtime.work import Work

CPU = RuntimeSettings(device="cpu", workers=1, checkpoint_seconds=1e-9)
SETTINGS = TrainingSettings(epochs=6, batch_size=6, learning_rate=0.05, schedule="cosine", weight_decay=0.0)
OUTPUT = Path("models/method/network")


def clone(folder: Path) -> Path:
    """Let ``folder`` be the clone whose code counts; gives the file of its only stage."""
    fingerprint.CODE = folder.resolve()
    file = fingerprint.CODE / "pipelines" / "method" / "stage.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():  # two ranks come here, and one would read what the other has just emptied
        file.write_text("ONE = 1\n")
    return file


def train(file: Path, after_step=None, finish=None, settings=SETTINGS, runtime=CPU, loss=losses) -> None:
    def build(device):
        return Training(model(0.3), loss, Points(), after_step=after_step, finish=finish)

    train_stage(str(file), Path("params.yaml"), settings, runtime, 3, build, inputs=[], parameters=[], output=OUTPUT)


def walk_all(file: Path, names, output: Path, infer=None, built=None, runtime=CPU, **more) -> None:
    def build(device):
        if built is not None:
            built.append(device)
        return infer or (lambda part, item, loaded: {"value": np.array([loaded, distributed.rank()])})

    walk_stage(str(file), Path("params.yaml"), runtime, names, key=str, load=lambda item: item * 10, build=build,
               inputs=[], parameters=[], output=output, description="walk", **more)


def in_turn(file: Path, after_step=None) -> None:
    """Walk, train, and both once more: every training wants all that the walk before it has found."""

    def build(folder):
        assert sorted(path.name for path in folder.iterdir()) == [f"{item}.npz" for item in range(6)]
        return Training(model(0.3), losses, Points(), after_step=after_step)

    with Work(str(file), [], None) as work:
        for number in range(2):
            folder = work.subfolder(str(number))
            walk(folder / "found", CPU, {"": range(6)}, key=str, load=lambda item: item,
                 build=lambda device: lambda part, item, loaded: {"value": np.array([loaded, distributed.rank()])},
                 description="walk")
            train_network(folder, SETTINGS, CPU, 3, lambda device, found=folder / "found": build(found),
                          name=OUTPUT.parts[-2:], description="train")
        work.publish({"0/result": "first", "1/result": "second"})


if __name__ == "__main__":
    stage = clone(Path.cwd())
    torch.manual_seed(0)
    if sys.argv[1] == "walk":
        walk_all(stage, {"a": [1, 2, 3], "b": [4, 5]}, Path("out"))
    elif sys.argv[1] == "in_turn":
        in_turn(stage)
    else:
        train(stage)
