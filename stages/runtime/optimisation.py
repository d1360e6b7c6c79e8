"""Learning-rate schedules and optimizers by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import ParamsT

Schedule = Callable[[float], float]


def polynomial(power: float = 0.9) -> Schedule:
    """Learning-rate factor (1 - progress)^power, as IRNet's paper decays it (section 6.1)."""
    return lambda done: (1.0 - min(done, 1.0)) ** power


def one_cycle(warm_up: float = 0.3) -> Schedule:
    """Learning-rate factor that rises along half a cosine for a share of the steps, then falls to 0 along another."""

    def factor(done: float) -> float:
        if done < warm_up:
            return 0.04 + 0.96 * 0.5 * (1.0 - float(np.cos(np.pi * done / warm_up)))
        return 0.5 * (1.0 + float(np.cos(np.pi * min((done - warm_up) / (1.0 - warm_up), 1.0))))

    return factor


def cosine() -> Schedule:
    """Learning-rate factor that falls from 1 to 0 along half a cosine."""
    return lambda done: 0.5 * (1.0 + float(np.cos(np.pi * min(done, 1.0))))


def steps(drops: tuple[float, ...], gamma: float = 0.1) -> Schedule:
    """Learning-rate factor that is multiplied by ``gamma`` at each share of the steps in ``drops``."""
    # Shares are compared with a little slack: (k / n) * n may fall short of k.
    return lambda done: gamma ** sum(done >= drop - 1e-9 for drop in drops)


SCHEDULES: dict[str, Schedule] = {"polynomial": polynomial(0.9), "one_cycle": one_cycle(), "cosine": cosine(),
                                  "thirds": steps((1 / 3, 2 / 3)), "last_third": steps((2 / 3,)),
                                  "constant": lambda done: 1.0}


def floored(schedule: Schedule, floor: float) -> Schedule:
    """``schedule``, whose factors are 0 to 1, brought into ``floor`` to 1."""
    if floor == 0:
        return schedule
    return lambda done: floor + (1.0 - floor) * schedule(done)


def warmed_up(schedule: Schedule, warmup_steps: int, total: int) -> Schedule:
    """``schedule`` with a linear rise from a thousandth over the first ``warmup_steps`` of ``total`` steps."""
    if warmup_steps == 0:
        return schedule
    return lambda done: schedule(done) * min(1.0, 0.001 + 0.999 * done * total / warmup_steps)


def part_at_rate(model: nn.Module, part: nn.Module, rate: float, factor: float) -> list[dict[str, object]]:
    """Parameter groups of a network: what ``part`` of it does not hold, at ``rate``, and the part at ``factor`` times
    it; frozen parameters are in neither."""
    held = {id(value) for value in part.parameters()}
    return [{"params": [value for value in model.parameters() if value.requires_grad and (id(value) in held) == own],
             "lr": own_rate} for own, own_rate in ((False, rate), (True, rate * factor))]


def make_optimizer(kind: str, groups: ParamsT, rate: float, weight_decay: float,
                   momentum: float = 0.9) -> torch.optim.Optimizer:
    """``sgd``, ``adam`` or ``adamw`` over parameters or parameter groups; ``momentum`` is SGD's."""
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=weight_decay)
    if kind == "adam":
        return torch.optim.Adam(groups, lr=rate, weight_decay=weight_decay)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, weight_decay=weight_decay)
