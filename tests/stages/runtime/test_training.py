from pathlib import Path

import linear_training
import numpy as np
import pytest
import torch
from agents import run_two
from linear_training import CPU, SLOPE, Partly, Points, losses, model, partly_losses, train
from torch import nn

from stages.runtime import optimisation, training
from stages.runtime.curves import cut_rows
from stages.runtime.errors import UserError


def _same(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(one, two) for one, two in
               zip(first.state_dict().values(), second.state_dict().values(), strict=True))


def _steps(folder: Path) -> dict[str, list[int]]:
    """Steps of every curve."""
    tables = {path.stem: path.read_text().splitlines() for path in sorted(folder.glob("curves/plots/metrics/**/*.tsv"))}
    return {name: [int(row.split("\t")[rows[0].split("\t").index("step")]) for row in rows[1:]]
            for name, rows in tables.items()}


def test_it_learns_a_linear_map(tmp_path):
    network = train(tmp_path, epochs=60)
    torch.testing.assert_close(network[0].weight, SLOPE, atol=0.05, rtol=0)
    torch.testing.assert_close(network[0].bias, torch.ones(2), atol=0.05, rtol=0)
    assert (tmp_path / "checkpoint.pt").exists()
    steps = _steps(tmp_path)
    assert set(steps) == {"absolute", "learning_rate", "squared"}
    assert steps["squared"] == list(range(9, 240, 10))


def test_another_seed_is_another_training(tmp_path):
    assert _same(train(tmp_path / "a"), train(tmp_path / "b"))
    assert not _same(train(tmp_path / "c", seed=4), train(tmp_path / "a"))


class KilledError(Exception):
    pass


def _until(step):
    def after(done):
        if done == step:
            raise KilledError

    return after


@pytest.mark.parametrize(("kill_at", "checkpoint_seconds"), [(1, 1e-9), (17, 1e-9), (23, 1e9), (40, 1e-9)])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, kill_at, checkpoint_seconds):
    """Parameters, EMA teacher and curves, with dropout and noise in the samples; the kill is after the step's update
    and before its checkpoint, so one step (or all, where none was due) is done again."""
    runtime = CPU.model_copy(update={"checkpoint_seconds": checkpoint_seconds})

    def run(folder, kill_at=None):
        network, teacher = model(dropout=0.3), model()

        def after(done):
            with torch.no_grad():
                for slow, fast in zip(teacher.parameters(), network.parameters(), strict=True):
                    slow.lerp_(fast, 0.1)
            if done == kill_at:
                raise KilledError

        train(folder, network, after_step=after, extra_state={"teacher": teacher}, runtime=runtime)
        return network, teacher

    whole = run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "resumed", kill_at)
    assert (tmp_path / "resumed" / "checkpoint.pt").exists() == (kill_at > 1 and checkpoint_seconds < 1)
    resumed = run(tmp_path / "resumed")
    assert all(map(_same, whole, resumed))
    for name, steps in _steps(tmp_path / "resumed").items():
        assert steps == _steps(tmp_path / "whole")[name]
        assert steps == sorted(set(steps))


def test_a_damaged_checkpoint_is_a_sentence(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"checkpoint\.pt: cannot be read as a checkpoint .*delete it"):
        train(tmp_path)


def test_a_finished_training_is_not_done_again(tmp_path):
    first = train(tmp_path)
    steps = _steps(tmp_path)

    def fails(*_):
        raise AssertionError("no step is left")

    assert _same(first, train(tmp_path, loss=fails))
    assert _steps(tmp_path) == steps


def test_a_row_that_a_kill_cut_short_goes(tmp_path):
    table = tmp_path / "loss.tsv"
    for text, expected in [("step\tloss\n9\t0.5\n19\t0.4\n29\t0.3\n", "step\tloss\n9\t0.5\n19\t0.4\n"),
                           ("step\tloss\n9\t0.5\n1", "step\tloss\n9\t0.5\n"), ("", "step\n")]:
        table.write_text(text)
        cut_rows(table, 25)
        assert table.read_text() == expected


def test_a_loss_that_is_not_finite_names_its_step(tmp_path):
    def diverging(network, batch):
        terms = losses(network, batch)
        diverging.calls += 1
        return {**terms, "broken": terms["squared"] * float("nan")} if diverging.calls == 4 else terms

    diverging.calls = 0
    with pytest.raises(UserError, match=r"points: the loss is not finite at step 3 .*'broken': nan.*lower the l"):
        train(tmp_path, loss=diverging)


def test_what_cannot_be_shared_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="0 samples in batches of 6 cannot be shared by 1 processes"):
        train(tmp_path, samples=Points(0))
    monkeypatch.setenv("WORLD_SIZE", "4")
    for changes in ({"batch_size": 3}, {"samples": Points(3)}):
        with pytest.raises(UserError, match="cannot be shared by 4 processes"):
            train(tmp_path, **changes)


def test_fewer_samples_than_a_batch(tmp_path):
    assert training.steps_per_epoch(4, 6) == 1
    train(tmp_path, samples=Points(4), epochs=3)


def test_every_sample_is_visited_once_in_an_epoch(monkeypatch):
    def drawn():
        batches = training._Batches(12, 4, seed=0, first=0, last=6)
        assert len(batches) == 6
        return [list(batch) for batch in batches]

    whole = drawn()
    for epoch in (0, 1):
        assert sorted(key for batch in whole[3 * epoch:3 * epoch + 3] for key in batch) == [
            (epoch, index) for index in range(12)]
    assert [key for batch in whole[:3] for key in batch] != [(0, index) for index in range(12)]
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        shares.append(drawn())
    for batch, first, second in zip(whole, *shares, strict=True):
        assert sorted(first + second) == sorted(batch)
        assert len(first) == len(second)


def test_gradients_are_clipped(tmp_path):
    before = model().state_dict()
    after = train(tmp_path, clip_norm=1e-6, epochs=1).state_dict()
    moved = sum(float((after[name] - before[name]).abs().sum()) for name in before)
    assert 0 < moved < 1e-5


@pytest.mark.parametrize(("name", "last"), [("polynomial", 0), ("one_cycle", 0), ("cosine", 0), ("thirds", 0.01),
                                            ("constant", 1)])
def test_schedules_stay_between_nothing_and_one(name, last):
    factors = [optimisation.SCHEDULES[name](done) for done in np.linspace(0, 1, 101)]
    assert min(factors) >= 0
    assert max(factors) == pytest.approx(1.0, abs=1e-3)
    assert factors[-1] == pytest.approx(last, abs=1e-6)


def test_steps_and_warm_up():
    thirds = [optimisation.SCHEDULES["thirds"](step / 9) for step in range(9)]
    assert thirds == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 3)
    warm = optimisation.warmed_up(optimisation.SCHEDULES["constant"], 10, 100)
    assert [warm(step / 100) for step in (0, 5, 10, 50)] == pytest.approx([0.001, 0.5005, 1, 1])


def test_a_floor_is_what_schedules_fall_to():
    falling = optimisation.floored(optimisation.SCHEDULES["cosine"], 0.2)
    assert [falling(done) for done in (0, 0.5, 1)] == pytest.approx([1, 0.6, 0.2])
    assert optimisation.floored(optimisation.SCHEDULES["constant"], 0.2)(0.7) == 1
    assert optimisation.floored(optimisation.SCHEDULES["cosine"], 0) is optimisation.SCHEDULES["cosine"]


def test_polynomial_is_the_papers():
    assert optimisation.polynomial(0.9)(0.5) == pytest.approx(0.5 ** 0.9)


def test_optimizers():
    parameters = model().parameters()
    assert isinstance(optimisation.make_optimizer("adamw", parameters, 0.1, 0.0), torch.optim.AdamW)
    assert optimisation.make_optimizer("sgd", model().parameters(), 0.1, 0.0).defaults["momentum"] == 0.9


@pytest.mark.parametrize("machines", [1, 2])
def test_two_processes_train_the_same_network(tmp_path, machines):
    """Also where a layer is never used, and where a process's share of a batch teaches nothing to another."""
    alone = {"work": train(tmp_path / "alone"), "partly": train(tmp_path / "other", Partly(), partly_losses)}
    assert not torch.equal(alone["partly"].rare.weight, Partly().rare.weight)
    run_two(linear_training.__file__, str(tmp_path), machines=machines)
    for name, network in alone.items():
        for rank in (0, 1):
            found = torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True)
            for key, value in network.state_dict().items():
                torch.testing.assert_close(found[key], value, atol=1e-5, rtol=0)
    assert _steps(tmp_path / "work") == _steps(tmp_path / "alone")
    # A checkpoint has one teacher: if they differed, a training that goes on would not be the one that was cut off.
    first, second = (torch.load(tmp_path / f"taught{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["network.1.running_mean"].any() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_batch_that_teaches_nothing(tmp_path):
    """The other processes wait for its gradients."""
    assert _same(train(tmp_path, loss=lambda network, batch: {"none": torch.zeros(())}, epochs=1), model())
