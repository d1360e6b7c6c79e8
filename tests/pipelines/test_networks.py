"""Networks that cannot be made are found by `check`, not by the stage that wants them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import timm
import torch
import yaml

from pipelines import networks
from pipelines.settings import METHODS, load_params
from pipelines.workspace import changed
from stages.runtime.errors import UserError
from stages.runtime.settings import read_yaml

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted(path.stem for path in (ROOT / "pipelines/presets").glob("*.yaml") if path.stem != "photos")
SUPERVISION = ["tags", "points", "boxes", "extreme_points"]


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")

    def read(method, changes=None, preset="shapes"):
        params = changed(read_yaml(ROOT / f"pipelines/presets/{preset}.yaml"),
                         {"method": method, "annotations.kinds": SUPERVISION, **(changes or {})})
        Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        return load_params(Path("params.yaml"))

    return read


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_built(load, preset):
    for method in METHODS:
        networks.check_networks(load(method, preset=preset))


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_train_say_what(method):
    stages = read_yaml(ROOT / f"pipelines/{method}/dvc.yaml")["stages"]
    trains = any(name.startswith("train_") for name in stages)
    assert (ROOT / f"pipelines/{method}/networks.py").exists() == trains


def test_nothing_is_downloaded_or_drawn(load, monkeypatch):
    made = []
    create = timm.create_model

    def watched(*args, **kwargs):
        made.append((kwargs.get("pretrained"), create(*args, **kwargs)))
        return made[-1][1]

    monkeypatch.setattr(timm, "create_model", watched)
    networks.check_networks(load("irnet", preset="voc2012"))
    assert len(made) == 2  # the classifier's and, as published, IRNet's own
    assert not any(pretrained for pretrained, _ in made)
    assert all(value.is_meta for _, model in made for value in model.parameters())
    torch.empty(1).numpy()  # the default device is what it was


@pytest.mark.parametrize(("method", "changes", "message"), [
    ("irnet", {"irnet.classifier.backbone.name": "resnet999"}, "irnet.classifier: backbone 'resnet999'"),
    ("irnet", {"irnet.classifier.backbone.arguments": {"chanels": [8]}}, "irnet.classifier: backbone"),
    ("irnet", {"irnet.classifier.backbone.stride": 5}, "irnet.classifier: .*stride 5 cannot be had"),
    ("exits", {"exits.generator.encoder.name": "resnet_ten"}, "exits.generator: "),
    ("exits", {"exits.generator.encoder.stride": 7}, "exits.generator: .*stride 7"),
    ("exits", {"exits.propagation.layer": 90}, "exits.propagation: "),
    ("bestie", {"bestie.network.backbone.stride": 3}, "bestie.network: .*stride 3"),
    ("bestie", {"bestie.maps.segmenter.backbone.name": "vgg_sixteen"}, "bestie.maps.segmenter: "),
    ("bestie", {"bestie.classifier.backbone.name": "vgg_sixteen"}, "bestie.classifier: "),
    ("wise", {"wise.network.strides": [64, 4]}, "wise.network: "),
    ("panoptic", {"panoptic.network.backbone.stride": 4, "panoptic.network.backbone.name": "vit_tiny_patch16_224",
                  "panoptic.network.backbone.arguments": {}}, "panoptic.network: "),
    ("panoptic", {"panoptic.classifier.backbone.arguments": {"channels": 3}}, "panoptic.classifier: "),
])
def test_what_cannot_be_made_is_named(load, method, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        networks.check_networks(load(method, changes))
    assert "\n" not in str(caught.value)


def test_a_layer_of_a_transformer_that_it_has_not(load):
    with pytest.raises(UserError, match="exits.propagation: .*13"):
        networks.check_networks(load("exits", {"exits.propagation.layer": 13}, preset="voc2012"))
    with pytest.raises(UserError, match="exits.propagation: exits.propagation.cells is 30, the encoder has 32"):
        networks.check_networks(load("exits", {"exits.propagation.cells": 30}, preset="voc2012"))


def test_weights_of_another_network(load, tmp_path):
    own, other = tmp_path / "own.pth", tmp_path / "other.pth"
    settings = load("irnet").irnet.classifier.backbone
    body = timm.create_model(settings.name, pretrained=False, num_classes=0, global_pool="", **settings.arguments)
    torch.save(body.state_dict(), own)
    torch.save(timm.create_model("mobilenetv2_050", pretrained=False).state_dict(), other)
    networks.check_networks(load("irnet", {"irnet.classifier.backbone.weights": str(own)}))
    with pytest.raises(UserError, match=f"irnet.classifier: {other}: these weights do not fit"):
        networks.check_networks(load("irnet", {"irnet.classifier.backbone.weights": str(other)}))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Servers that answer or not, and an empty cache."""
    asked = []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(networks.huggingface_hub, "try_to_load_from_cache", lambda repository, file: None)
    monkeypatch.setattr(networks, "_answers", lambda server: asked.append(server) or False)
    return asked


def test_downloads_that_cannot_be_had(load, hub, monkeypatch):
    settings = load("irnet", preset="voc2012")
    with pytest.raises(UserError, match=r"irnet.\w+.backbone.weights: imagenet: the weights of \S+ are not in "
                                        r"timm's cache, and \S+ does not answer within 5 s; give the path"):
        networks.check_downloads(settings)
    assert len(hub) == 1  # a server is asked once
    Path("models/irnet/classifier").mkdir(parents=True)
    assert len(networks.check_downloads(settings)) == 1  # a training that may not be wanted again: a warning
    monkeypatch.setattr(networks, "_answers", lambda server: True)
    assert networks.check_downloads(settings) == []
    monkeypatch.setattr(networks, "_answers", lambda server: 1 / 0)  # not asked where the cache has all
    monkeypatch.setattr(networks.huggingface_hub, "try_to_load_from_cache", lambda repository, file: "/cache/file")
    assert networks.check_downloads(settings) == []
    assert networks.check_downloads(load("irnet")) == []  # shapes learns from nothing


def test_a_server_that_never_answers(monkeypatch):
    monkeypatch.setattr(networks, "PATIENCE", 0.2)

    def silent(*args, **kwargs):
        time.sleep(3)
        raise OSError("too late")

    monkeypatch.setattr(networks.urllib.request, "urlopen", silent)
    start = time.monotonic()
    assert not networks._answers("https://nowhere.invalid")
    assert time.monotonic() - start < 2.5

    def refused(*args, **kwargs):
        raise networks.urllib.error.HTTPError("https://there", 403, "forbidden", None, None)

    monkeypatch.setattr(networks.urllib.request, "urlopen", refused)
    assert networks._answers("https://there")
