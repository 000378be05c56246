"""Self-supervised label augmentation by rotations (SLA, Lee et al. 2020).

Every image is seen turned by 0, 90, 180 and 270 degrees, and the network tells class and turn together: 4 K
outputs, with label 4 y + m for turn m; the loss of an image is the mean cross-entropy of its four turns. Rows
0, 4, 8, … of these outputs, those of unturned images, are the network's FC layer, so that checkpoint and
store hold an ordinary network of K classes. The other 3 K rows are a layer of their own beside it.
The aggregate of an image is the mean over m of the K outputs of turn m of the image turned by m.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from extract.training.losses.kind import Loss, LossKind, Setting

if TYPE_CHECKING:
    from torch import Tensor, nn

TURNS = 4
NAME = "turned"  # of the layer, in the FC layer
PREFIX = f"classifier.{NAME}."


def add_turned(classifier: "nn.Linear") -> None:
    """Give an FC layer, C to K, the 3 K outputs of turned images, which its own outputs do not need.

    Their weights are drawn from torch's global generator.
    """
    from torch import nn

    n_channels, n_classes = classifier.in_features, classifier.out_features
    classifier.add_module(NAME, nn.Linear(n_channels, (TURNS - 1) * n_classes))


def split_turned(state: Mapping[str, "Tensor"]) -> tuple[dict[str, "Tensor"], dict[str, "Tensor"] | None]:
    """A network's state dict without what `add_turned` added, and that part; None if there is none."""
    turned = {name: tensor for name, tensor in state.items() if name.startswith(PREFIX)}
    return {name: tensor for name, tensor in state.items() if name not in turned}, turned or None


def turns(images: "Tensor") -> "list[Tensor]":
    """Square images (B, 3, H, H), turned by 0, 1, 2 and 3 quarters."""
    return [images.rot90(m, (2, 3)) for m in range(TURNS)]


def joint_outputs(logits: "Tensor", turned: "Tensor") -> "Tensor":
    """(B, 4 K) outputs from the (B, K) of the FC layer and the (B, 3 K) of its layer for turned images."""
    import torch

    by_turn = turned.unflatten(1, (TURNS - 1, -1))  # (B, 3, K)
    return torch.cat([logits[:, None], by_turn], dim=1).transpose(1, 2).flatten(1)


def make_sla(config: Any, setting: Setting) -> Loss:
    """Label augmentation; the FC layer has had `add_turned`."""
    import torch
    from torch.nn.functional import cross_entropy

    turned = getattr(setting.classifier, NAME)

    def terms(outputs: "Tensor", labels: "Tensor") -> "Tensor":
        joint = torch.cat([TURNS * labels + m for m in range(TURNS)])
        return cross_entropy(outputs, joint, reduction="none").view(TURNS, -1).mean(dim=0)

    return Loss(
        terms,
        images=lambda images: torch.cat(turns(images)),
        outputs=lambda logits, pooled: joint_outputs(logits, turned(pooled)),
    )


KIND = LossKind(make_sla, {}, mixes=False)
