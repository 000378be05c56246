"""A network as two parts: a feature sub-network and one FC classifier with global average pooling between.

That shape is what class activation maps need (paper, sec. 4.1): the classifier's weights, applied to every
position of the last feature map, show where the evidence for a class is.
"""

from copy import deepcopy

import torch
from torch import nn


class Network(nn.Module):
    """Features, global average pooling, one FC layer.

    Attributes:
        features: (B, 3, H, W) images to (B, C, H', W') feature maps ("Block4").
        classifier: the FC layer, C to K.
        stages: names of modules of `backbone` that are numbered there, by the usual names of their stages.
        is_known: whether its code is ours, torchvision's or timm's, so that a copy of its modules can run in
            another thread meanwhile; who builds it says so. Other code may share more than weights with its
            copy.
    """

    def __init__(self, features: nn.Module, classifier: nn.Linear):
        super().__init__()
        self.features = features
        self.classifier = classifier
        self.stages: dict[str, str] = {}
        self.is_known = False

    @property
    def backbone(self) -> nn.Module:
        """All but the FC layer, with parameters under the names that its authors gave them."""
        return self.features

    @property
    def backbone_prefix(self) -> str:
        """What stands before the names of `backbone` in the network as its authors wrote it."""
        return "features."

    @property
    def classifier_names(self) -> list[str]:
        """The names of the FC layer in the network as its authors wrote it; usually one."""
        return ["classifier"]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K), in float32 under autocast too."""
        return self.classify(self.pooled(images))

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C) what the FC layer is given, in float32 under autocast too."""
        return pool(self.features(images))

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) of float32 pooled features (B, C), never in reduced precision."""
        with torch.autocast(pooled.device.type, enabled=False):
            return self.classifier(pooled)

    def original(self) -> nn.Module:
        """A copy as its authors wrote it, which needs nothing of this program's: (B, 3, H, W) to logits.

        Its tensors have the names that the authors gave them. This network is one of ours, with our names.
        """
        return deepcopy(self)


def pool(feature_map: torch.Tensor) -> torch.Tensor:
    """Global average pooling of (B, C, H, W) in float32, whatever the maps' precision: (B, C)."""
    return feature_map.float().mean(dim=(2, 3))
