"""A small training for test_training.py; run by torchrun too: ``linear_training.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from stages.runtime.ema import Teacher
from stages.runtime.optimisation import make_optimizer
from stages.runtime.settings import RuntimeSettings
from stages.runtime.training import fit

SLOPE = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
CPU = RuntimeSettings(device="cpu", workers=1)


class Points:
    """Points of a linear map, with noise that depends on the generator."""

    def __init__(self, count: int = 24) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def sample(self, index, generator):
        torch_generator = torch.Generator().manual_seed(index)
        x = torch.randn(3, generator=torch_generator)
        noise = torch.from_numpy(generator.normal(0, 0.01, 2)).float()
        return {"x": x, "y": SLOPE @ x + 1.0 + noise}


def model(dropout: float = 0.0) -> nn.Module:
    """A linear map; the dropout draws from torch's global generator."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Dropout(dropout))


def losses(network, batch):
    error = network(batch["x"]) - batch["y"]
    return {"squared": (error ** 2).mean(), "absolute": 0.1 * error.abs().mean()}


class Partly(nn.Module):
    """A linear map, one that few samples teach, and one that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map, self.rare, self.unused = nn.Linear(3, 2), nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, x):
        return self.map(x), self.rare(x)


def partly_losses(network, batch):
    """The second term is a constant where no sample of the share counts, as in an image without an object."""
    found, rare = network(batch["x"])
    counts = batch["x"][:, 0] > 1
    term = (rare[counts] ** 2).sum() / len(rare) if counts.any() else torch.zeros(())
    return {"squared": ((found - batch["y"]) ** 2).mean(), "rare": term}


def train(folder: Path, network: nn.Module | None = None, loss=losses, samples=None, **changes) -> nn.Module:
    """The same training wherever it is called from."""
    network = model() if network is None else network
    samples = Points() if samples is None else samples
    arguments = {"epochs": 10, "batch_size": 6, "schedule": lambda done: 1.0 - 0.9 * done, "folder": folder, "seed": 3,
                 "runtime": CPU, "description": "points", **changes}
    optimizer = make_optimizer("sgd", network.parameters(), 0.05, 0.0)
    return fit(network, loss, samples, optimizer, **arguments)


def taught(folder: Path) -> Teacher:
    """The teacher of a network whose batch norm counts; of several processes each counts its own share of a batch."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    teacher = Teacher(network, 0.9)
    train(folder, network, extra_state={"teacher": teacher}, after_step=lambda step: teacher.follow(network))
    return teacher


if __name__ == "__main__":
    for name, found in (("work", train(Path(sys.argv[1]) / "work")),
                        ("partly", train(Path(sys.argv[1]) / "partly", Partly(), partly_losses)),
                        ("taught", taught(Path(sys.argv[1]) / "taught"))):
        torch.save(found.state_dict(), Path(sys.argv[1]) / f"{name}{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()  # a busy machine may otherwise end a rank before gloo's threads
