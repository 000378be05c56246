"""The initial further parts of heads that are not one FC layer."""

import numpy as np

from finetune.config import FinetuneConfig
from finetune.heads.options import FewShot
from finetune.methods.registry import METHODS
from finetune.sampling.episodes import episode_shape, head_with_rows
from finetune.sampling.philox import CounterRNG
from finetune.sampling.plan import PlanInputs
from finetune.training.statistics import TrainStatistics
from store.errors import UserError
from store.names import shown
from store.reader import FeatureStore

CONFIDENCE = 0.1  # of every channel, as the authors of DisAlign begin


def further_parts(
    config: FinetuneConfig, store: FeatureStore, common: TrainStatistics
) -> dict[str, np.ndarray]:
    """Parts by name, besides the `weight` and `bias` of an FC layer; none for a head that is one.

    Raises:
        UserError: a class that needs training rows has none.
    """
    make = PARTS.get(METHODS[config.method].trainable)
    return {} if make is None else make(config, store, common)


def _alignment(config: FinetuneConfig, store: FeatureStore, common: TrainStatistics) -> dict[str, np.ndarray]:
    n_classes, n_channels = store.classifier[0].shape
    return {
        "logit_scale": np.ones(n_classes, np.float32),
        "logit_shift": np.zeros(n_classes, np.float32),
        "confidence_weight": np.full((1, n_channels), CONFIDENCE, np.float32),
        "confidence_bias": np.zeros(1, np.float32),
    }


def _meta_embedding(
    config: FinetuneConfig, store: FeatureStore, common: TrainStatistics
) -> dict[str, np.ndarray]:
    """Class means, Phase I's layer to recall them by, and a random selector."""
    _check_all_have_rows(config, store, common)
    weight, bias = store.classifier
    n_channels = weight.shape[1]
    # Behind the numbers of the weights, of which `--init fresh` makes the FC layer.
    n_numbers = weight.size + bias.size + n_channels * n_channels + n_channels
    uniform = CounterRNG(config.seed).uniform("fresh weight", 0, 1, n_numbers)[0, weight.size + bias.size :]
    selector = ((2 * uniform - 1) / np.sqrt(n_channels)).astype(np.float32)
    return {
        "centroids": common.moments().mean.astype(np.float32),
        "memory_weight": weight,
        "memory_bias": bias,
        "selector_weight": selector[:-n_channels].reshape(n_channels, n_channels),
        "selector_bias": selector[-n_channels:],
    }


def few_shot(
    config: FinetuneConfig, store: FeatureStore, inputs: PlanInputs, common: TrainStatistics
) -> FewShot:
    """What a weight generator makes weights of: the rows of all classes but the head.

    Raises:
        UserError: a class has no training rows, there are too few head classes, or the batch is too small.
    """
    _check_all_have_rows(config, store, common)
    head = np.sort(head_with_rows(inputs))
    shape = episode_shape(len(head), config.batch_size)
    rows = np.flatnonzero(~np.isin(common.label, head))
    return FewShot(head, store.read("train").pooled[rows], common.label[rows].astype(np.int64), shape)


def _check_all_have_rows(config: FinetuneConfig, store: FeatureStore, common: TrainStatistics) -> None:
    empty = np.flatnonzero(common.class_counts == 0)
    if len(empty):
        raise UserError(
            f"--method {config.method}: class {shown(store.class_names[empty[0]])} has no training rows in "
            "the store, and the method makes a part of the head of each class's; use another method"
        )


PARTS = {"alignment": _alignment, "meta-embedding": _meta_embedding}
