"""What a head may be: one FC layer, or one with further parts.

Each kind is a tuple of its parts, by the names that head.pt and a run's checkpoint.pt hold them under, and
the names tell the kind. All have a `weight` (K, C), whose rows are what a class is recognised by; class
activation maps are made with it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import linear, normalize

KIND = "kind"  # the entry of head.pt that names the kind; an FC layer has none, as in older versions
MEMORY_SCALE, REACH = 16.0, 10.0  # of Liu et al. 2019: the logits' scale, and the distance of reachability 1


class FullyConnected(NamedTuple):
    """One FC layer.

    Attributes:
        weight: (K, C) float32.
        bias: (K,) float32.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def logits(self, pooled: torch.Tensor) -> torch.Tensor:
        """(B, K) of pooled features (B, C)."""
        return linear(pooled, self.weight, self.bias)

    @staticmethod
    def shapes(n_classes: int, n_channels: int) -> dict[str, tuple[int, ...]]:
        """The shape of each part."""
        return {"weight": (n_classes, n_channels), "bias": (n_classes,)}


def fully_connected(arrays: tuple[np.ndarray, np.ndarray], device: torch.device) -> FullyConnected:
    """A layer from weight (K, C) and bias (K,), copied to a device."""
    return FullyConnected(*(torch.tensor(part, device=device) for part in arrays))


class Aligned(NamedTuple):
    """DisAlign (Zhang et al. 2021): logits z of an FC layer, moved as far as an image's confidence says.

    (1 + s a_k) z_k + s b_k, with the confidence s = sigmoid(v · x + c).

    Attributes:
        weight, bias: (K, C) and (K,) float32, of z.
        logit_scale, logit_shift: (K,) float32, a and b.
        confidence_weight, confidence_bias: (1, C) and (1,) float32, v and c.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    logit_scale: torch.Tensor
    logit_shift: torch.Tensor
    confidence_weight: torch.Tensor
    confidence_bias: torch.Tensor

    def logits(self, pooled: torch.Tensor) -> torch.Tensor:
        """(B, K) of pooled features (B, C)."""
        unmoved = linear(pooled, self.weight, self.bias)
        confidence = linear(pooled, self.confidence_weight, self.confidence_bias).sigmoid()
        return unmoved + confidence * (unmoved * self.logit_scale + self.logit_shift)

    @staticmethod
    def shapes(n_classes: int, n_channels: int) -> dict[str, tuple[int, ...]]:
        """The shape of each part."""
        of_class = dict.fromkeys(("logit_scale", "logit_shift"), (n_classes,))
        of_image = {"confidence_weight": (1, n_channels), "confidence_bias": (1,)}
        return FullyConnected.shapes(n_classes, n_channels) | of_class | of_image


class MetaEmbedding(NamedTuple):
    """The dynamic meta-embedding of OLTR (Liu et al. 2019, sec. 3.2) with its cosine classifier.

    A feature x is joined by what it recalls of the classes' centroids, v = x + tanh(E x + e) ⊙ m with
    m = softmax(H x + h) · centroids; it is trusted the less, the farther x is from the nearest centroid.
    With u = (10 / distance) v, logit k is 16 · u · w_k / ((1 + ‖u‖) ‖w_k‖), which is written here as
    16 · v · w_k / ((distance / 10 + ‖v‖) ‖w_k‖): on a centroid, the distance is 0.

    Attributes:
        weight: (K, C) float32, w.
        centroids: (K, C) float32.
        memory_weight, memory_bias: (K, C) and (K,) float32, H and h.
        selector_weight, selector_bias: (C, C) and (C,) float32, E and e.
    """

    weight: torch.Tensor
    centroids: torch.Tensor
    memory_weight: torch.Tensor
    memory_bias: torch.Tensor
    selector_weight: torch.Tensor
    selector_bias: torch.Tensor

    def logits(self, pooled: torch.Tensor) -> torch.Tensor:
        """(B, K) of pooled features (B, C)."""
        recalled = linear(pooled, self.memory_weight, self.memory_bias).softmax(dim=1) @ self.centroids
        selected = linear(pooled, self.selector_weight, self.selector_bias).tanh()
        joined = pooled + selected * recalled
        length = torch.linalg.vector_norm(joined, dim=1, keepdim=True)
        products = linear(joined, normalize(self.weight, dim=1))
        return MEMORY_SCALE * products / (self._distance(pooled) / REACH + length)

    def _distance(self, pooled: torch.Tensor) -> torch.Tensor:
        """(B, 1) to the nearest centroid."""
        squares = pooled.square().sum(1, keepdim=True) + self.centroids.square().sum(1)
        of_all = squares - 2 * linear(pooled, self.centroids)
        return of_all.amin(dim=1, keepdim=True).clamp_min(0).sqrt()

    @staticmethod
    def shapes(n_classes: int, n_channels: int) -> dict[str, tuple[int, ...]]:
        """The shape of each part."""
        of_classes = dict.fromkeys(("weight", "centroids", "memory_weight"), (n_classes, n_channels))
        of_selector = {"selector_weight": (n_channels, n_channels), "selector_bias": (n_channels,)}
        return of_classes | {"memory_bias": (n_classes,)} | of_selector


class Cosine(NamedTuple):
    """A cosine classifier (Gidaris & Komodakis 2018): s · cos(x, w_k).

    Attributes:
        weight: (K, C) float32, w.
        logit_scale: (1,) float32, s.
    """

    weight: torch.Tensor
    logit_scale: torch.Tensor

    def logits(self, pooled: torch.Tensor) -> torch.Tensor:
        """(B, K) of pooled features (B, C)."""
        return self.logit_scale * linear(normalize(pooled, dim=1), normalize(self.weight, dim=1))

    @staticmethod
    def shapes(n_classes: int, n_channels: int) -> dict[str, tuple[int, ...]]:
        """The shape of each part."""
        return {"weight": (n_classes, n_channels), "logit_scale": (1,)}


Layer = FullyConnected | Aligned | MetaEmbedding | Cosine
KINDS = {"fc": FullyConnected, "aligned": Aligned, "meta-embedding": MetaEmbedding, "cosine": Cosine}


def kind_of(layer: Layer) -> str:
    """The name of a head's kind."""
    return next(name for name, kind in KINDS.items() if type(layer) is kind)


def saved_parts(layer: Layer) -> dict[str, Any]:
    """The parts of a head by name, to save: on the CPU, with its kind unless that is one FC layer."""
    parts = {name: part.detach().cpu() for name, part in layer._asdict().items()}
    return parts if type(layer) is FullyConnected else {KIND: kind_of(layer)} | parts


def layer_of(parts: Mapping[str, Any]) -> Layer:
    """The head that has these parts: what `saved_parts` returned, or parts without their kind.

    Raises:
        ValueError: they are not those of a head, or their shapes do not fit each other.
    """
    tensors = {name: part for name, part in parts.items() if name != KIND}
    found = [name for name, kind in KINDS.items() if tensors.keys() == set(kind._fields)]
    if not found or parts.get(KIND, found[0]) != found[0]:
        raise ValueError(f"it has the parts {', '.join(sorted(map(str, parts)))}, which no head has")
    layer = KINDS[found[0]](**tensors)
    if not all(isinstance(part, torch.Tensor) for part in layer) or layer.weight.ndim != 2:
        raise ValueError("its parts are not tensors, or its weight is not (K, C)")
    for name, shape in layer.shapes(*layer.weight.shape).items():
        if (part := tensors[name]).shape != shape or part.dtype != torch.float32:
            raise ValueError(f"its {name} is {tuple(part.shape)} {part.dtype}, expected {shape} float32")
    return layer
