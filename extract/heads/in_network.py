"""A head with further parts as the classifier of a network."""

from collections.abc import Mapping

import torch
from torch import nn

from extract.heads.kinds import Layer, kind_of, layer_of

PREFIX = "classifier."  # of a head's parts in the state dict of a network


class HeadModule(nn.Linear):
    """A head in the place of a network's FC layer: a linear layer, with its further parts as parameters.

    Attributes:
        kind: name of its kind.
    """

    def __init__(self, layer: Layer):
        super().__init__(layer.weight.shape[1], layer.weight.shape[0], bias=False, device="meta")
        self._kind = type(layer)
        self.kind = kind_of(layer)
        for name, part in layer._asdict().items():
            self.register_parameter(name, nn.Parameter(part))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) of pooled features (B, C)."""
        return self._kind(*(getattr(self, name) for name in self._kind._fields)).logits(pooled)


def head_in(state: Mapping[str, torch.Tensor]) -> HeadModule | None:
    """The head of a network's state dict; None if it is one FC layer.

    Raises:
        ValueError: its parts are not those of a head.
    """
    return HeadModule(layer_of(_parts(state))) if has_further_parts(state) else None


def has_further_parts(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether the head of a network's state dict is more than one FC layer."""
    return not _parts(state).keys() <= {"weight", "bias"}


def _parts(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(PREFIX): part for k, part in state.items() if k.startswith(PREFIX)}


def with_head(state: Mapping[str, torch.Tensor], layer: Layer) -> dict[str, torch.Tensor]:
    """A network's state dict with another head; its tensors are not copied."""
    backbone = {name: tensor for name, tensor in state.items() if not name.startswith(PREFIX)}
    return backbone | {f"{PREFIX}{name}": part for name, part in layer._asdict().items()}
