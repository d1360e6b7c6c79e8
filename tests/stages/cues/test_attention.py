from __future__ import annotations

import pytest
import torch

from stages.cues.attention import TokenEncoder
from stages.runtime.errors import UserError

SMALL = {"embed_dim": 24, "depth": 3, "num_heads": 3}
NAME = "vit_tiny_patch16_224"


def _encoder(weights: str = "none", side: int = 64, **arguments) -> TokenEncoder:
    torch.manual_seed(0)
    return TokenEncoder(NAME, weights, {**SMALL, **arguments}, side, 16).eval()


def test_shapes():
    encoder = _encoder()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert encoder(images).shape == (2, 24, 4, 4)
    assert (encoder.cells, encoder.width, encoder.depth) == (4, 24, 3)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_attention_is_what_the_transformer_multiplies_its_values_with(layer):
    """With values of one in one token, the layer's own output says how much every token attends to it."""
    encoder = _encoder()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    ours = encoder.attention(images, layer)[0]
    module = encoder.body.blocks[layer - 1].attn
    seen = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(images)
    handle.remove()
    prefix = encoder.body.num_prefix_tokens
    tokens, width = seen[0], 24
    with torch.no_grad():
        module.proj.weight.copy_(torch.eye(width))
        module.proj.bias.zero_()
        weight, bias = module.qkv.weight, module.qkv.bias
        queries, keys = (tokens @ weight[:2 * width].T + bias[:2 * width]).split(width, dim=-1)
        expected = torch.zeros(16, 16)
        for head in range(3):
            part = slice(head * 8, head * 8 + 8)
            scores = queries[0, :, part] @ keys[0, :, part].T / 8**0.5
            expected += scores.softmax(-1)[prefix:, prefix:] / 3
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


def test_mean_over_all_layers():
    encoder = _encoder()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    each = torch.stack([encoder.attention(images, layer) for layer in (1, 2, 3)])
    torch.testing.assert_close(encoder.attention(images, 0), each.mean(0))


def test_rows_sum_to_one_without_a_class_token():
    encoder = _encoder(class_token=False, global_pool="")
    attention = encoder.attention(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8), 2)
    torch.testing.assert_close(attention.sum(-1), torch.ones(1, 16))


def test_positions_learnt_at_another_size_are_interpolated(tmp_path):
    trained = _encoder(side=64)
    torch.nn.init.normal_(trained.body.patch_embed.proj.weight)
    torch.save({"model": trained.body.state_dict()}, tmp_path / "weights.pth")
    same, larger = _encoder(str(tmp_path / "weights.pth")), _encoder(str(tmp_path / "weights.pth"), side=128)
    torch.testing.assert_close(same.body.patch_embed.proj.weight, trained.body.patch_embed.proj.weight)
    assert larger.body.pos_embed.shape[1] == 8 * 8 + larger.body.num_prefix_tokens
    assert larger(torch.zeros(1, 3, 128, 128, dtype=torch.uint8)).shape == (1, 24, 8, 8)


def test_what_cannot_work_is_said(tmp_path):
    with pytest.raises(UserError, match="no such weights file"):
        _encoder(str(tmp_path / "missing.pth"))
    with pytest.raises(UserError, match="patches are 16 px wide"):
        TokenEncoder(NAME, "none", SMALL, 64, 8)
    with pytest.raises(UserError, match="a multiple of it"):
        TokenEncoder(NAME, "none", SMALL, 72, 16)
    with pytest.raises(UserError, match="no plain vision transformer|cannot be made"):
        TokenEncoder("resnet10t", "none", {}, 64, 16)
    with pytest.raises(UserError, match="layer 4 was asked for, the transformer has 3"):
        _encoder().attention(torch.zeros(1, 3, 64, 64), 4)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match="cannot be made"):
        _encoder(str(tmp_path / "text.pth"))


def test_a_class_token_of_the_weights_is_read_and_left_out(tmp_path):
    """MAE's weights have one: the paper presets must load them at another size, as they are."""
    import yaml

    from pipelines.workspace import ROOT

    trained = TokenEncoder(NAME, "none", {**SMALL, "class_token": True}, 64, 16)
    torch.save({"model": trained.body.state_dict()}, tmp_path / "mae.pth")
    for path in sorted((ROOT / "pipelines/presets").glob("*.yaml")):
        encoder = yaml.safe_load(path.read_text())["exits"]["generator"]["encoder"]
        if encoder["kind"] == "vit":
            loaded = TokenEncoder(NAME, str(tmp_path / "mae.pth"), {**SMALL, **encoder.get("arguments", {})}, 128, 16)
            assert loaded(torch.zeros(1, 3, 128, 128, dtype=torch.uint8)).shape == (1, 24, 8, 8)
            assert torch.equal(loaded.body.cls_token, trained.body.cls_token)
