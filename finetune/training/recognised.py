"""How many fused samples are still of their class, as Phase I's head sees it.

What decides whether they help: docs/methods.md, "When do fused samples help?".
"""

from functools import partial

import numpy as np
import torch

from extract.heads.kinds import FullyConnected, fully_connected
from finetune.config import FinetuneConfig
from finetune.loading.upload import beside_steps
from finetune.loading.window import WindowMaker, window_bounds
from finetune.methods.registry import find_sampling
from finetune.mixing.fsa import fused
from finetune.sampling.philox import below
from finetune.sampling.plan import Plan, PlanInputs
from finetune.training.inputs import fused_layer, maps_of_iteration
from finetune.training.trainer import LoadedStore
from store.reader import FeatureStore

SAMPLES = 2048  # the standard deviation of a share of 80 % is then 0.9 points
FACT = "fused_recognised_percent"


def recognised_facts(config: FinetuneConfig, inputs: PlanInputs, loaded: LoadedStore) -> dict[str, float]:
    """The share of fused samples that Phase I's head takes for their class, for config.json.

    2,048 samples or a few more are made for this, of the classes that the run fuses samples of, drawn
    uniformly; so the share is hardly one of how batches are drawn, and not at all of where the maps live.

    Args:
        config: resolved options.
        inputs: what the run's plan is drawn from.
        loaded: the store.

    Returns:
        The share in %, to one decimal; nothing for a run that fuses no samples.

    Raises:
        StoreError: feature maps cannot be read.
    """
    if not find_sampling(config).of_fsa or not len(classes := _fused_classes(config, inputs)):
        return {}
    window, n_each = loaded.prepare_maps(config), min(SAMPLES, maps_of_iteration(config) // 2)
    maps, draw = loaded.maps[fused_layer(config)], partial(_of_every_class, classes, n_each)
    make = WindowMaker(draw, inputs, loaded.features, maps).make
    head, n_channels = without_shares(loaded.store, loaded.device), loaded.features.pooled.shape[1]
    found = []
    with beside_steps(loaded.device):
        for bounds in window_bounds(0, -(-SAMPLES // n_each), window, []):
            made = make(bounds)
            made.arrive()
            for pooled, label in zip(made.pooled[..., :n_channels], made.label, strict=True):
                found.append(head.logits(pooled).argmax(dim=1) == label)
    return {FACT: round(100 * torch.cat(found).double().mean().item(), 1)}


def _fused_classes(config: FinetuneConfig, inputs: PlanInputs) -> np.ndarray:
    """Classes with training images that samples are fused of."""
    is_fused = (inputs.confusing[:, 0] >= 0) & (inputs.row_counts > 0)
    return np.flatnonzero(is_fused & (inputs.replaced > 0) if find_sampling(config).mixes else is_fused)


def _of_every_class(classes: np.ndarray, n_each: int, inputs: PlanInputs, start: int, stop: int) -> Plan:
    """Batches of fused samples alone, of classes that are drawn uniformly."""
    drawn = classes[below(inputs.draws.uniform("class", start, stop, n_each), len(classes))]
    row = inputs.rows_of_classes(drawn, inputs.draws.uniform("row of class", start, stop, n_each))
    return Plan(row, fused(inputs, start, stop, row, None, row))


def without_shares(store: FeatureStore, device: torch.device) -> FullyConnected:
    """Phase I's head with the class shares taken off its logits, as by logit adjustment at τ 1.

    A class without training images is never the largest.
    """
    weight, bias = store.classifier
    counts = store.read("train").class_counts(len(bias))
    with np.errstate(divide="ignore"):
        log_share = np.log(counts / counts.sum())
    shift = np.where(counts > 0, log_share, np.inf)
    return fully_connected((weight, (bias - shift).astype(np.float32)), device)
