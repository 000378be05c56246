"""How many fused samples are still of their class, as Phase I's head sees it.

Where few were, they did harm: docs/methods.md, "When do fused samples help?".
"""

from typing import Any

import numpy as np
import pandas as pd
import torch

from extract.heads.kinds import fully_connected
from finetune.loading.window import Window
from finetune.training.trainer import LoadedStore, Trainer

ITERATIONS = 64  # whose samples are looked at: 3,072 of Algorithm 1, a share to within a point
HELPFUL = 80.0  # %: where fewer were recognised they did harm, where 86 and more were they did not
FACT = "fused_recognised_percent"


def recognised_facts(trainer: Trainer, loaded: LoadedStore) -> dict[str, float | None]:
    """The share of a run's fused samples that Phase I's head recognises, for config.json.

    It is the mean of the classes' shares, so that batches with more samples of one class than of another can
    be compared. Samples of the first 64 iterations are looked at, or of the whole run if it is shorter; they
    depend neither on where the maps live nor on how far the training is.

    Returns:
        The share in %, None if no sample of these was fused; nothing for a method that fuses none.

    Raises:
        StoreError: feature maps cannot be read.
    """
    if not trainer.fuses:
        return {}
    found = pd.concat([_of_fused(window, loaded) for window in trainer.first_windows(ITERATIONS)])
    share = found.groupby("label")["recognised"].mean().mean()
    return {FACT: None if found.empty else round(100 * float(share), 1)}


def _of_fused(window: Window, loaded: LoadedStore) -> pd.DataFrame:
    """The fused samples of a window: their label, and whether they are recognised."""
    mix, n_channels = window.plan.mix, loaded.features.pooled.shape[1]
    places = slice(-mix.n_samples, None)
    pooled, label = window.pooled[:, places, :n_channels], window.label[:, places]
    is_mixed = torch.ones(label.shape, dtype=torch.bool) if mix.is_mixed is None else mix.is_mixed
    is_mixed = torch.as_tensor(is_mixed, device=label.device)
    pooled, label = pooled[is_mixed], label[is_mixed]
    found = recognised(pooled, label, loaded)
    return pd.DataFrame({"label": label.cpu().numpy(), "recognised": found.cpu().numpy()})


def recognised(pooled: torch.Tensor, label: torch.Tensor, loaded: LoadedStore) -> torch.Tensor:
    """Which features are taken for their class by Phase I's head, as by logit adjustment at τ 1.

    The class with the largest logit once log π is taken off, with π the class shares in training; a class
    without training images is never it.

    Args:
        pooled: (M, C) float32.
        label: (M,) their classes.
        loaded: the store.

    Returns:
        (M,) bool.
    """
    counts = loaded.common.class_counts
    log_share = np.log(counts / counts.sum(), where=counts > 0, out=np.full(len(counts), np.inf))
    logits = fully_connected(loaded.store.classifier, pooled.device).logits(pooled)
    shift = torch.from_numpy(log_share).float().to(pooled.device)
    return (logits - shift).argmax(dim=1) == label


def warning_of(facts: dict[str, Any]) -> str | None:
    """What to tell the user of a run whose fused samples are often not of their class any more."""
    share = facts.get(FACT)
    if share is None or share >= HELPFUL:
        return None
    return (
        f"Phase I's head recognises {share:.1f} % of the fused samples as their class; where it was less "
        f"than {HELPFUL:.0f} %, real ones did better: compare with --method no-aug and balanced-softmax"
    )
