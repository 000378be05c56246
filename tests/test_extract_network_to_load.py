"""Networks of checkpoints: proved on numbers once, and not searched on the meta device before."""

import pytest
import torch

from extract.config import NetworkConfig
from extract.networks import found
from extract.networks.registry import check_network, network_to_load
from store.errors import UserError


def test_a_checkpoints_network_is_followed_once_on_numbers(monkeypatch):
    devices, find_split = [], found.find_split

    def followed(network: torch.nn.Module, images: torch.Tensor) -> found.Split:
        devices.append(images.device.type)
        return find_split(network, images)

    monkeypatch.setattr(found, "find_split", followed)
    network = network_to_load(NetworkConfig("shufflenet_v2_x0_5"), 3, 64)
    assert devices == ["cpu"]
    assert network.classifier.out_features == 3


@pytest.mark.parametrize(
    "arch", ["alexnet", "list_models", "fasterrcnn_resnet50_fpn", "timm:no_such", "timm:vit_tiny_patch16_224"]
)
def test_one_that_cannot_be_used_is_refused_as_before_training(arch):
    with pytest.raises(UserError) as before:
        check_network(NetworkConfig(arch))
    with pytest.raises(UserError) as loading:
        network_to_load(NetworkConfig(arch), 3)
    assert str(loading.value) == str(before.value)
