"""The image side sees a picture that is its own only crop once."""

from __future__ import annotations

import torch

from molmo_ros.molmo.config import MolmoVisionConfig
from molmo_ros.molmo.vision import VisionBackbone


def backbone() -> VisionBackbone:
    torch.manual_seed(0)
    config = MolmoVisionConfig(
        image_size=[28, 28], patch_size=14, pooling_size=[2, 2], hidden_size=32, intermediate_size=64,
        num_hidden_layers=3, num_attention_heads=2, head_dim=16, feature_layers=[-1, -2], projector_size=48,
    )  # fmt: skip
    built = VisionBackbone(config, 24)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return built.eval()


def test_two_equal_crops_cost_one_look_and_give_what_two_looks_give() -> None:
    side, looks = backbone(), []
    side.image_vit.register_forward_pre_hook(lambda _, inputs: looks.append(len(inputs[0])))
    crop = torch.randn(2, 1, 4, 3 * 14 * 14)
    with torch.no_grad():
        once = side.features(crop.expand(-1, 2, -1, -1))
        apart = torch.cat([side.features(crop), side.features(crop)], dim=1)
    assert looks == [2, 2, 2]
    torch.testing.assert_close(once, apart)


def test_crops_that_differ_are_all_looked_at() -> None:
    side, looks = backbone(), []
    side.image_vit.register_forward_pre_hook(lambda _, inputs: looks.append(len(inputs[0])))
    with torch.no_grad():
        features = side.features(torch.randn(2, 2, 4, 3 * 14 * 14))
    assert looks == [4]
    assert not torch.allclose(features[:, 0], features[:, 1])
