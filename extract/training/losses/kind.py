"""What a loss of Phase I is made of. torch is imported only when one is made: `--help` asks for names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Setting:
    """What a loss may depend on, besides its options.

    Attributes:
        images: (K,) float64, training images of each class.
        delivered: (K,) float64, images of each class in an epoch as the sampler delivers them; differs from
            `images` where batches are re-balanced, which priors must not correct again.
        epochs: of the training.
        classifier: the network's FC layer. All of these are on the network's device.
    """

    images: "Tensor"
    delivered: "Tensor"
    epochs: int
    classifier: "nn.Linear"


@dataclass(frozen=True)
class ClassWeights:
    """Weights of images by their labels.

    Attributes:
        weight: (K,) float32.
        by_weights: divide by the sum of a batch's weights, as PyTorch's weighted cross-entropy does, instead
            of the batch's size, as Cui et al. do.
        since: finished epochs, as a share of all, before which all images weigh the same.
    """

    weight: "Tensor"
    by_weights: bool
    since: float = 0.0


@dataclass(frozen=True)
class Loss:
    """A loss, as the parts from which `Objective` computes the loss of a batch.

    Attributes:
        terms: (B, K) outputs and (B,) labels to the (B,) losses of the images.
        mean: the mean of these, where it has a faster form; used if all images weigh the same.
        images: what the network sees of a batch's images, which may be several versions of each; None for
            the images themselves.
        outputs: (B, K) logits and (B, C) pooled features to what `terms` takes; None for the logits.
        weights: of images by label; None if all weigh the same.
        beside: (B, C) pooled features and (B,) labels to a loss of the batch, which is added.
        constrain: changes the FC layer before the first step and after each one.
    """

    terms: "Callable[[Tensor, Tensor], Tensor]"
    mean: "Callable[[Tensor, Tensor], Tensor] | None" = None
    images: "Callable[[Tensor], Tensor] | None" = None
    outputs: "Callable[[Tensor, Tensor], Tensor] | None" = None
    weights: ClassWeights | None = None
    beside: "Callable[[Tensor, Tensor], Tensor] | None" = None
    constrain: Callable[[], None] | None = None


@dataclass(frozen=True)
class LossKind:
    """A loss in the registry.

    Attributes:
        make: makes the loss from a resolved LossConfig.
        options: options that it takes, with their defaults; a default that is a function is one of the number
            of epochs.
        mixes: whether it can take images that are mixed of two, of the same class or not.
    """

    make: Callable[[Any, Setting], Loss]
    options: Mapping[str, Any]
    mixes: bool = True
