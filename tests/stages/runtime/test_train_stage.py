import shutil
from pathlib import Path

import pytest
import staged
import torch
from agents import run_two
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from linear_training import losses
from staged import CPU, OUTPUT, SETTINGS, clone, in_turn, train

from stages.runtime import fingerprint, training


@pytest.fixture
def stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fingerprint, "CODE", tmp_path)
    return clone(tmp_path)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class KilledError(Exception):
    pass


def _killed_at(step):
    def after(done):
        if done == step:
            raise KilledError

    return after


def test_it_leaves_weights_curves_and_what_the_method_adds(stage):
    def finish(folder):
        assert not torch.is_grad_enabled()
        (folder / "more.json").write_text("{}")

    train(stage, finish=finish)
    files = _files(OUTPUT)
    assert {"weights.pt", "more.json"} <= set(files)
    assert any(name.startswith("curves/plots/metrics") for name in files)
    assert set(torch.load(OUTPUT / "weights.pt", weights_only=True)) == {"0.weight", "0.bias"}
    assert not list(Path(".work").glob("method-stage-*"))


def test_the_rate_falls_to_the_floor(stage):
    found = []
    for floor in (0.0, 0.2):
        train(stage, settings=SETTINGS.model_copy(update={"floor": floor}))
        (path,) = OUTPUT.rglob("learning_rate.tsv")
        found.append(float(path.read_text().splitlines()[-1].split("\t")[-1]))
    assert 0 < found[0] < 0.05 * 0.02
    assert found[1] == pytest.approx(0.05 * 0.2 + 0.8 * found[0])


@pytest.mark.parametrize("step", [7, 13, 23])
def test_killed_and_resumed_gives_the_same_bytes(stage, step):
    """Weights, and curves whose rows average ten steps wherever the kill was."""
    train(stage)
    whole = _files(OUTPUT)
    shutil.rmtree(OUTPUT)
    with pytest.raises(KilledError):
        train(stage, after_step=_killed_at(step))
    train(stage)
    assert _files(OUTPUT) == whole


def test_a_kill_after_the_training_does_not_stop_the_next_run(stage, monkeypatch):
    """The curves are copied: a rename would leave the retry without the folder that its checkpoint goes with."""
    train(stage)
    whole = _files(OUTPUT)
    shutil.rmtree(OUTPUT)

    def killed(*_):
        raise KilledError

    monkeypatch.setattr(training.Work, "publish", killed)
    with pytest.raises(KilledError):
        train(stage)
    monkeypatch.undo()
    monkeypatch.chdir(stage.parents[2])
    monkeypatch.setattr(fingerprint, "CODE", stage.parents[2])
    train(stage)
    assert _files(OUTPUT) == whole


@pytest.mark.parametrize("kills", [[], [5], [30], [13, 40]], ids=str)
def test_two_trainings_of_one_stage_go_on_where_they_were(stage, kills):
    """24 steps each; what is done is not done again, and the kills change no byte."""
    train(stage)
    seen: list[int] = []

    def after_step(done):
        seen.append(done)
        if len(seen) in kills:
            raise KilledError

    for _ in kills:
        with pytest.raises(KilledError):
            in_turn(stage, after_step)
    in_turn(stage, after_step)
    assert len(seen) < 24 * 2 + 3, "at most the step of each kill was done again"
    assert _files(Path("first")) == _files(Path("second")) == _files(OUTPUT)


def test_two_processes_walk_and_train_in_turn(stage, tmp_path):
    for mode in ("train", "in_turn"):
        run_two(staged.__file__, mode, cwd=tmp_path)
    weights = [(folder / "weights.pt").read_bytes() for folder in (OUTPUT, Path("first"), Path("second"))]
    assert weights[0] == weights[1] == weights[2]


def test_all_look_for_a_result_before_the_first_takes_it_away(stage, monkeypatch, tmp_path):
    """A process that came late would otherwise begin a training for which it has no company."""
    result, waits = tmp_path / "result", []
    result.mkdir()

    def wait():
        waits.append(result.exists())
        if len(waits) == 2:
            result.rmdir()

    monkeypatch.setattr(training, "wait_for_all", wait)
    training.train_network(tmp_path, staged.SETTINGS, CPU, 3, lambda device: pytest.fail("it is done"), name=["a"],
                           description="points")
    assert waits == [True, True]


def test_a_comment_does_not_begin_anew_and_a_line_does(stage, capsys):
    for edit, goes_on in (("ONE = 1  # more\n", True), ("ONE = 2\n", False)):
        with pytest.raises(KilledError):
            train(stage, after_step=_killed_at(12))
        stage.write_text(edit)
        for function in (fingerprint._tree, fingerprint._digest_of_file):
            function.cache_clear()
        seen = []
        train(stage, after_step=seen.append)
        assert seen[0] == (12 if goes_on else 1)  # the kill came before the checkpoint of its step


def test_without_epochs_the_initial_weights_are_published(stage):
    train(stage, settings=SETTINGS.model_copy(update={"epochs": 0}))
    state = torch.load(OUTPUT / "weights.pt", weights_only=True)
    from linear_training import model
    assert all(torch.equal(state[name], value) for name, value in model().state_dict().items())
    assert not (OUTPUT / "curves").exists()


def test_counted_in_steps(stage):
    """In the place of epochs, as many as are said, also more than one pass has."""
    done = []
    train(stage, after_step=done.append, settings=SETTINGS.model_copy(update={"steps": 5, "epochs": 0}))
    assert done == [1, 2, 3, 4, 5]
    assert training.total_steps(SETTINGS.model_copy(update={"steps": 5}), 600) == 5
    assert training.total_steps(SETTINGS, 600) == 6 * 100 and training.total_steps(SETTINGS, 4) == 6
    assert SETTINGS.passes(600) == 6 and SETTINGS.model_copy(update={"steps": 5}).passes(60) == 0.5


def test_the_scale_of_gradients_survives(stage, monkeypatch):
    """In 16-mixed the scaler halves its scale after an overflow; forgotten in a checkpoint, it would start anew."""
    scales = []

    def fabric(runtime):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** 8, growth_interval=5)
        made = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
        scales.append(scaler)
        return made

    monkeypatch.setattr(training, "_fabric", fabric)
    train(stage)
    whole, scale = _files(OUTPUT), scales[-1].get_scale()
    assert scale != 2.0 ** 8
    shutil.rmtree(OUTPUT)
    with pytest.raises(KilledError):
        train(stage, after_step=_killed_at(13))
    train(stage)
    assert _files(OUTPUT) == whole
    assert scales[-1].get_scale() == scale


def test_what_changes_the_result_changes_the_work(stage):
    """The precision is not among a method's settings, and yet it decides the weights."""
    folders = set()
    for changes in ({}, {"runtime": CPU.model_copy(update={"precision": "bf16-mixed"})},
                    {"settings": SETTINGS.model_copy(update={"sync_batch_norm": True})}):
        with pytest.raises(KilledError):
            train(stage, after_step=_killed_at(3), **changes)
        folders |= {path.name for path in Path(".work").glob("method-stage-*")}
    assert len(folders) == 3


def test_losses_are_curves(stage):
    train(stage, loss=lambda network, batch: {f"my_{key}": value for key, value in losses(network, batch).items()})
    names = {path.stem for path in OUTPUT.glob("curves/plots/metrics/**/*.tsv")}
    assert names == {"my_squared", "my_absolute", "learning_rate"}
