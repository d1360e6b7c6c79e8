"""IRNet's weights on disk: fields of what was trained, a backbone of its own, weights that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.irnet.fields import field_inference, fields
from pipelines.irnet.network import IRNet, build_irnet, load_irnet, trained_state
from pipelines.irnet.settings import FieldSettings, IRNetSettings, NetworkSettings
from stages.cues.backbone import grid_of
from stages.cues.classification import describe_classifier
from stages.cues.classifier import Classifier
from stages.cues.settings import BackboneSettings
from stages.runtime.errors import UserError
from stages.runtime.weights import save_weights

NARROW = {"name": "resnet10t", "weights": "none", "arguments": {"channels": [8, 8, 16, 24], "stem_width": 8}}


@pytest.fixture
def trained(tmp_path):
    """Folders of a classifier and of an IRNet on it, as the training stages leave them, and the settings."""
    torch.manual_seed(0)
    backbone = BackboneSettings(**NARROW, stride=8)
    classifier = Classifier(backbone, 3).eval()
    describe_classifier(tmp_path / "classifier", classifier, [1, 2, 3])
    save_weights(tmp_path / "classifier/weights.pt", classifier.state_dict())
    settings = IRNetSettings(network=NetworkSettings(channels=16, boundary_channels=4), inference=FieldSettings())
    model = IRNet(classifier.backbone, settings.network, grid_of(4)).eval()
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("backbone.")}
    save_weights(tmp_path / "irnet/weights.pt", state)
    return tmp_path, settings, model, state


def test_fields_of_trained_networks(trained):
    folder, settings, model, _ = trained
    infer = field_inference(folder / "classifier", folder / "irnet", torch.device("cpu"), settings)
    images = torch.randint(0, 256, (3, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        several = infer([("", {"id": number}, image) for number, image in enumerate(images)])
        for image, found in zip(images, several, strict=True):
            displacement, boundary = fields(model, image, True)
            assert found["displacement"].dtype == found["boundary"].dtype == np.float16
            assert np.allclose(found["displacement"], displacement, rtol=1e-3, atol=1e-3)
            assert np.allclose(found["boundary"], boundary, atol=1e-3)


def test_a_backbone_of_its_own_is_kept_with_the_weights(trained):
    folder, settings, _, _ = trained
    own = BackboneSettings(**{**NARROW, "weights": str(folder / "gone.pt")}, stride=16)  # at training time it was there
    fresh = settings.model_copy(update={"network": settings.network.model_copy(update={
        "backbone": own.model_copy(update={"weights": "none"})})})
    torch.manual_seed(1)
    model = build_irnet(folder / "classifier", fresh, torch.device("cpu")).eval()
    save_weights(folder / "irnet/weights.pt", trained_state(model, fresh.network))
    later = settings.model_copy(update={"network": settings.network.model_copy(update={"backbone": own})})
    loaded = load_irnet(folder / "irnet", folder / "no classifier", later, torch.device("cpu"))
    assert loaded.backbone.grid.stride == 16
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert not loaded.training


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_weights_that_do_not_fit_are_refused(trained, change):
    folder, settings, _, state = trained
    if change == "missing":
        del state["displacement.0.decode.2.weight"]
    elif change == "unknown":
        state["decode.3.weight"] = torch.zeros(1)
    else:
        state["displacement.0.decode.2.weight"] = torch.zeros(2, 8, 1, 1)
    save_weights(folder / "irnet/weights.pt", state)
    with pytest.raises(UserError, match=r"irnet.weights\.pt: .*decode\.[23]\.weight"):
        field_inference(folder / "classifier", folder / "irnet", torch.device("cpu"), settings)
