"""Every loss of a head as in its paper, for autograd; made heads and batches."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy, cross_entropy, one_hot

from finetune.heads import losses
from finetune.heads.losses import Loss
from finetune.heads.options import HeadOptions
from finetune.heads.stacked import padded

CPU = torch.device("cpu")
PRIOR = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
SMOOTHING = np.array([0.4, 0.25, 0.125, 1.0, 0.0])  # all of a label may be spread, or none
LOSSES = {
    "ce": Loss(),
    "balanced-softmax": losses.balanced_softmax(PRIOR, 1.5),
    "class-balanced": losses.class_balanced(PRIOR, 1000, 0.99, divide_by_weights=False),
    "class-balanced by weights": losses.class_balanced(PRIOR, 1000, 0.99, divide_by_weights=True),
    "class-balanced-bce": losses.class_balanced_binary(PRIOR, 1000, 0.99),
    "re-weighted": losses.re_weighted(PRIOR, 1.2),
    "smoothed": Loss(smoothing=SMOOTHING.astype(np.float32)),
    "focal": losses.focal(2.0),
    "focal below 1": losses.focal(0.5),
}


def options(rng: np.random.Generator, k: int = 5, c: int = 7, dtype=np.float64, **more) -> HeadOptions:
    weight, bias = rng.normal(size=(k, c)).astype(dtype), rng.normal(size=k).astype(dtype)
    return HeadOptions(weight, bias, **{"loss": Loss(), "lr": 0.1, "momentum": 0.9} | more)


def batches(rng: np.random.Generator, t: int, b: int, k: int = 5, c: int = 7, dtype=np.float64):
    pooled = torch.from_numpy(rng.random((t, b, c)).astype(dtype))
    return pooled, torch.from_numpy(rng.integers(k, size=(t, b)))


def reference_loss(name: str, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Each loss as in its paper, for autograd."""
    if name == "balanced-softmax":
        weighted = torch.from_numpy(PRIOR) ** 1.5 * logits.exp()
        return -(weighted.gather(1, label[:, None])[:, 0] / weighted.sum(1)).log().mean()
    if name.startswith("class-balanced"):
        effective = (1 - 0.99 ** (1000 * PRIOR)) / (1 - 0.99)
        weight = torch.from_numpy(1 / effective / (1 / effective).sum() * len(PRIOR))
        if name.endswith("weights"):
            return cross_entropy(logits, label, weight)
        if name.endswith("bce"):  # the mean over all terms, as in the authors' code
            own = one_hot(label, len(PRIOR)).double()
            return binary_cross_entropy(logits.softmax(1), own, weight[label][:, None].expand_as(own))
        return cross_entropy(logits, label, weight, reduction="sum") / len(label)
    if name == "re-weighted":
        weight = torch.tensor([share**-1.2 for share in PRIOR])
        return cross_entropy(logits, label, weight * len(PRIOR) / weight.sum())
    if name == "smoothed":
        target = one_hot(label, len(PRIOR)).double()
        spread = torch.from_numpy(SMOOTHING)[label][:, None]
        return cross_entropy(logits, (1 - spread) * target + spread / len(PRIOR))
    if name.startswith("focal"):
        gamma = 0.5 if name.endswith("1") else 2.0
        ce = cross_entropy(logits, label, reduction="none")
        return ((1 - (-ce).exp()) ** gamma * ce).mean()
    return cross_entropy(logits, label)


def taught_by_autograd(
    name: str,
    logits: Callable[[torch.Tensor], torch.Tensor],
    groups: list[dict[str, Any]],
    batches: tuple[torch.Tensor, torch.Tensor],
    weight_decay: float,
    schedule: str,
) -> torch.Tensor:
    """Train what `logits` of a batch depend on by torch.optim.SGD; the (T,) losses before each step.

    Args:
        name: of the loss.
        logits: (B, K) of features (B, C).
        groups: parameters, as torch's optimisers take them.
        batches: features (T, B, C) and labels (T, B).
        weight_decay, schedule: as in `HeadOptions`; learning rate and momentum are those of `options`.
    """
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches[0]))
    found = []
    for x, y in zip(*batches, strict=True):
        loss = reference_loss(name, logits(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if schedule == "cosine":
            scheduler.step()
        found.append(loss.detach())
    return torch.stack(found)


def taught(head: Any, batches: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Train a head in windows of seven iterations; the (T, S) losses before each step."""
    pooled, label = batches
    starts = range(0, len(pooled), 7)
    return torch.cat([head.train_on(padded(pooled[i : i + 7]), label[i : i + 7], i) for i in starts])
