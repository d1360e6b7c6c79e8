import pickle

import pytest
import torch
from torch import nn

from stages.runtime.ema import Teacher
from stages.runtime.errors import UserError
from stages.runtime.weights import load_weights, read_state, save_weights


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_the_same_numbers_are_the_same_bytes(tmp_path, network):
    for name in ("one/weights.pt", "another_folder/other.pt"):
        save_weights(tmp_path / name, network.state_dict())
    views = {name: value.expand(2, *value.shape)[1] for name, value in network.state_dict().items()}
    save_weights(tmp_path / "views.pt", views)
    contents = {path.read_bytes() for path in tmp_path.rglob("*.pt")}
    assert len(contents) == 1


def test_there_and_back(tmp_path, network):
    save_weights(tmp_path / "w.pt", {"student": network.state_dict(), "teacher": network.state_dict()})
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    load_weights(tmp_path / "w.pt", other, "teacher")
    assert all(torch.equal(one, two) for one, two in zip(network.state_dict().values(), other.state_dict().values(),
                                                        strict=True))
    with pytest.raises(UserError, match=r"w.pt: no network 'third' in it; delete .* and run `dvc repro` again"):
        load_weights(tmp_path / "w.pt", other, "third")


def test_weights_that_are_kept_elsewhere_are_left_out(tmp_path, network):
    save_weights(tmp_path / "w.pt", {key: value for key, value in network.state_dict().items() if key[0] == "1"})
    load_weights(tmp_path / "w.pt", network, without="0.")
    with pytest.raises(UserError, match=r"2 differences: 0.weight is missing; 0.bias is missing"):
        load_weights(tmp_path / "w.pt", network)


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: state.pop("0.bias"), "0.bias is missing"),
    (lambda state: state.update(more=torch.zeros(1)), "more is unknown"),
    (lambda state: state.update({"0.bias": torch.zeros(4, dtype=torch.complex64)}), "0.bias is of torch.complex64"),
    (lambda state: state.update({"0.bias": torch.zeros(4, dtype=torch.int64)}), "0.bias is of torch.int64 and"),
    (lambda state: state.update({"0.bias": torch.zeros(5)}), r"0.bias has the shape \(5,\), not \(4,\)"),
])
def test_what_does_not_fit_is_named(tmp_path, network, change, message):
    state = dict(network.state_dict())
    change(state)
    save_weights(tmp_path / "w.pt", state)
    before = network[0].weight.clone()
    with pytest.raises(UserError, match=message):
        load_weights(tmp_path / "w.pt", network)
    assert torch.equal(network[0].weight, before)


@pytest.mark.parametrize(("content", "why"), [
    (b"no weights", "it is no file of torch.save"), (b"", "it is empty, or cut"),
    (pickle.dumps(print, 2), "it holds .*print, and nothing but tensors is read"),
], ids=["text", "empty", "pickle"])
def test_files_that_are_no_weights(tmp_path, content, why):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match=rf"w.pth: cannot be read as PyTorch weights \(.*{why}") as caught:
        read_state(tmp_path / "w.pth")
    assert "arbitrary code" not in str(caught.value), "torch advises to run it"


def test_state_dicts_of_others(tmp_path):
    with pytest.raises(UserError, match="no such weights file"):
        read_state(tmp_path / "absent.pth")
    for content in ([1, 2], {"epoch": 3, "lr": 0.1}, torch.zeros(3)):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(UserError, match="other.pth: a state dict"):
            read_state(tmp_path / "other.pth")
    torch.save(nn.Linear(1, 1), tmp_path / "whole.pth")  # a pickled module is code, not weights
    with pytest.raises(UserError, match="it holds torch.nn.modules.linear.Linear, and nothing but tensors"):
        read_state(tmp_path / "whole.pth")
    for wrapper in ("state_dict", "model"):
        torch.save({wrapper: {"module.weight": torch.ones(2)}, "epoch": 3}, tmp_path / "wrapped.pth")
        assert list(read_state(tmp_path / "wrapped.pth")) == ["weight"]


def test_damaged_and_missing_files(tmp_path, network):
    with pytest.raises(UserError, match="no such file; the stage that writes it has not run"):
        load_weights(tmp_path / "none.pt", network)
    (tmp_path / "bad.pt").write_bytes(b"no zip")
    with pytest.raises(UserError, match="bad.pt: cannot be read as weights"):
        load_weights(tmp_path / "bad.pt", network)


def test_a_teacher_is_the_average_and_stays_in_evaluation(network):
    teacher = Teacher(network, 0.5)
    assert not teacher.train().network.training
    with torch.no_grad():
        network[0].weight.add_(1)
        network[1].running_mean.add_(3)
    before = teacher.network[0].weight.clone()
    teacher.follow(network)  # the first step keeps a tenth
    torch.testing.assert_close(teacher.network[0].weight, 0.1 * before + 0.9 * network[0].weight)
    assert torch.equal(teacher.network[1].running_mean, network[1].running_mean)
    for _ in range(60):
        teacher.follow(network)
    torch.testing.assert_close(teacher.network[0].weight, network[0].weight)
    assert int(teacher.steps) == 61


def test_sparse_weights_are_refused_and_halves_taken(tmp_path, network):
    state = {name: value.clone() for name, value in network.state_dict().items()}
    torch.save({**state, "0.bias": state["0.bias"].to_sparse()}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w\.pt: does not fit .*0\.bias is of torch.float32 and torch.sparse_coo"):
        load_weights(tmp_path / "w.pt", network)
    torch.save({**state, "0.bias": torch.full((4,), 0.5, dtype=torch.float16)}, tmp_path / "w.pt")
    load_weights(tmp_path / "w.pt", network)
    assert network.state_dict()["0.bias"].tolist() == [0.5] * 4
