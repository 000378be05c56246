"""From options and a store to what the loop needs: inputs of the plan and initial heads."""

import math
from dataclasses import replace

import numpy as np

from finetune.config import RELATIVE, FinetuneConfig
from finetune.heads.options import HeadOptions
from finetune.heads.posthoc import ComputedLayer, Trained
from finetune.methods.losses import make_loss
from finetune.methods.registry import METHODS, find_sampling
from finetune.methods.sampling import Sampling
from finetune.mixing.gaussians import ClassNoise
from finetune.mixing.in_place import enlarged
from finetune.mixing.mixup import share_quantiles
from finetune.sampling.head_tail import HeadTail, split_head_tail
from finetune.sampling.masks import generic_positions, specific_positions
from finetune.sampling.philox import CounterRNG
from finetune.sampling.plan import Mixing, PlanInputs
from finetune.training.further_parts import few_shot, further_parts
from finetune.training.statistics import TrainStatistics
from store.errors import UserError
from store.reader import FeatureStore

SHARE = 0.1  # --max-norm relative, as published: shortest norm plus this share of (longest − shortest)


def plan_inputs(
    config: FinetuneConfig, store: FeatureStore, common: TrainStatistics | None = None
) -> PlanInputs:
    """Collect the inputs of a plan: classes, confusing classes and, for maps, position sets.

    Args:
        config: resolved options.
        store: the features.
        common: the store's statistics, if they are already there.

    Raises:
        UserError: there is no tail class, or the feature maps have one position only.
    """
    common = common or TrainStatistics(store)
    sampling, head_tail = find_sampling(config), split_classes(config, common.class_counts)
    confusing = specific = generic = None
    layer = _stored_layer(config, store)
    if sampling.needs_positions:
        _check_several_positions(store)
        cam = common.cam if layer is None else enlarged(common.cam, *store.maps(layer).shape[1:3])
        specific = specific_positions(cam, config.tau_s)
        generic = generic_positions(cam, config.tau_g) if layer is None else None
    if sampling.needs_confusing:
        donors = _donor_classes(config, head_tail, common.class_counts)
        mixed = _mixed_classes(config, sampling, head_tail, common.class_counts)
        confusing = common.confusing(mixed, config.confusing_classes, donors)
    return PlanInputs(
        label=common.label,
        head_tail=head_tail,
        confusing=confusing,
        specific=specific,
        generic=generic,
        batch_size=config.batch_size,
        n_tail=config.n_tail,
        augmented_per_sample=config.augmented_per_sample,
        tail_draw=config.tail_draw,
        gamma=(config.gamma_min, config.gamma_max),
        draws=CounterRNG(config.seed),
        mixing=_mixing_of_plan(config, store, sampling, common),
        in_place=layer is not None,
    )


def fused_layer(config: FinetuneConfig) -> str | None:
    """The earlier layer whose maps are fused; None for the last one, or for a method that fuses none."""
    sampling = find_sampling(config)
    return config.fuse_after if sampling is not None and "fuse_after" in sampling.options else None


def _stored_layer(config: FinetuneConfig, store: FeatureStore) -> str | None:
    """`fused_layer`; UserError if the store does not hold its maps."""
    layer = fused_layer(config)
    if layer is not None and layer not in store.layers:
        held = f"holds {', '.join(store.layers)}" if store.layers else "holds the last layer alone"
        raise UserError(
            f"--fuse-after {layer}: {store.path} has no maps of it ({held}); name one that it holds, or "
            f"extract with --layers {layer}"
        )
    return layer


def _mixing_of_plan(
    config: FinetuneConfig, store: FeatureStore, sampling: Sampling, common: TrainStatistics
) -> Mixing:
    """What `mixing_of` says, with what is computed of all rows."""
    mixing = mixing_of(config, store, common.class_counts)
    if not sampling.needs_class_noise:
        return mixing
    noise = ClassNoise(common.moments(), config.seed, config.covariance, config.spread)
    return replace(mixing, neighbours=common.nearest(config.neighbour_classes), of_classes=noise)


def _mixed_classes(
    config: FinetuneConfig, sampling: Sampling, head_tail: HeadTail, class_counts: np.ndarray
) -> np.ndarray:
    """Classes of which rows are replaced: only of these are scores needed, and the head has many samples."""
    if sampling.mixes and config.mix_classes != "tail":
        return np.flatnonzero(class_counts)
    return head_tail.tail[class_counts[head_tail.tail] > 0]


def mixing_of(config: FinetuneConfig, store: FeatureStore, class_counts: np.ndarray) -> Mixing:
    """Which rows are replaced, how many channels are swapped, and how shares of rows are spread.

    Raises:
        UserError: no channel would be swapped, no row replaced, or there are too few classes.
    """
    sampling, n_present = find_sampling(config), int((class_counts > 0).sum())
    if sampling.needs_class_noise and config.neighbour_classes > n_present:
        raise UserError(
            f"--neighbour-classes {config.neighbour_classes}: the store has rows of {n_present} classes; "
            f"lower it to {n_present} or less"
        )
    if sampling.mixes and config.mix_classes == "fill" and len(set(class_counts[class_counts > 0])) == 1:
        raise UserError(
            f"--mix-classes fill: all classes have {class_counts.max():,} rows, so none is filled up; use "
            "--mix-classes all"
        )
    in_halves = sampling.mixes and sampling.in_halves and config.mix_classes == "tail"
    if in_halves and Mixing(config.mix_share).n_places(config.batch_size) < 2:
        raise UserError(
            f"--mix-share {config.mix_share:g}: replaces none of {config.batch_size} rows, for in halves a "
            f"single place has a head row; raise it to {2 / config.batch_size:g} or more"
        )
    n_channels = store.classifier[0].shape[1]
    n_swapped = int(round(config.rho * n_channels, 6))  # 0.29 · 100 is 28.999999999999996
    if "rho" in sampling.options and not n_swapped:
        raise UserError(
            f"--rho {config.rho:g}: swaps none of {n_channels} channels; raise it to "
            f"{math.ceil(1e6 / n_channels) / 1e6:g} or more"
        )
    quantiles = share_quantiles(config.alpha) if "alpha" in sampling.options else None
    return Mixing(config.mix_share, config.mix_classes, n_swapped, n_channels, quantiles)


def reads_maps(config: FinetuneConfig) -> bool:
    """Whether batches are made from feature maps; those of a computed head are not made at all."""
    sampling = find_sampling(config)
    return sampling is not None and sampling.reads_maps


def maps_of_iteration(config: FinetuneConfig) -> int:
    """The most maps that an iteration reads: of rows that are replaced, and of their donors."""
    if find_sampling(config).mixes:
        return 2 * Mixing(config.mix_share).n_places(config.batch_size)
    return config.n_tail * (1 + config.augmented_per_sample)


def check_batches(config: FinetuneConfig, store: FeatureStore, class_counts: np.ndarray) -> None:
    """Raise UserError if batches cannot be drawn from a store as resolved options ask."""
    split_classes(config, class_counts)
    sampling = find_sampling(config)
    if sampling is not None:
        mixing_of(config, store, class_counts)
        if sampling.needs_positions:
            _check_several_positions(store)
        _stored_layer(config, store)


def _check_several_positions(store: FeatureStore) -> None:
    _, height, width, _ = store.map_shape
    if height * width == 1:
        raise UserError(
            f"{store.path}: its feature maps are 1×1, so there is nothing to fuse; extract from a network "
            "with larger maps (such as resnet18-cifar for 32×32 images), or use --method no-aug"
        )


def split_classes(config: FinetuneConfig, class_counts: np.ndarray) -> HeadTail:
    """Head and tail classes.

    Raises:
        UserError: the method needs tail classes or donor classes, and there are none or too few.
    """
    head_tail, sampling = split_head_tail(class_counts, config.head_ratio), find_sampling(config)
    if sampling is None:
        return head_tail
    needs_tail = sampling.in_halves or (sampling.mixes and config.mix_classes == "tail")
    instead = "--method plain" if config.sampling is None else "another --sampling"
    instead = instead if sampling.in_halves else "--mix-classes all"
    if needs_tail and not len(head_tail.tail):
        raise UserError(
            f"--head-ratio {config.head_ratio}: makes all {len(class_counts)} classes head classes and "
            f"leaves no tail; lower it, use a long-tailed data set (train --imbalance-factor), or {instead}"
        )
    empty = head_tail.tail[class_counts[head_tail.tail] == 0]
    if sampling.in_halves and len(empty):
        raise UserError(
            f"--method {config.method}: {len(empty)} tail classes have no training rows in the store (class "
            f"{empty[0]} is the first), so no tail samples can be drawn from them; extract again, or use "
            f"{instead}"
        )
    if sampling.needs_confusing:
        _donor_classes(config, head_tail, class_counts)
    return head_tail


def _donor_classes(config: FinetuneConfig, head_tail: HeadTail, class_counts: np.ndarray) -> np.ndarray:
    """Classes that may lend vectors: those with rows, of the head alone with --donors head.

    Raises:
        UserError: they are fewer than --confusing-classes, one's own left out where that may lend.
    """
    found = head_tail.head if config.donors == "head" else np.concatenate([head_tail.head, head_tail.tail])
    found = found[class_counts[found] > 0]
    mixes_head = find_sampling(config).mixes and config.mix_classes != "tail"
    n_others = len(found) - (config.donors == "any" or mixes_head)
    if config.confusing_classes > n_others:
        whose = "with --donors head there are" if config.donors == "head" else "there are"
        raise UserError(
            f"--confusing-classes {config.confusing_classes}: {whose} only {n_others} donor classes; "
            f"lower it{', or raise --head-ratio' if config.donors == 'head' else ''}"
        )
    return found


def head_options(
    config: FinetuneConfig, store: FeatureStore, inputs: PlanInputs, common: TrainStatistics | None = None
) -> HeadOptions:
    """The initial weights of a head, and how it is trained."""
    common = common or TrainStatistics(store)
    method = METHODS[config.method]
    weight, bias = store.classifier if config.init == "phase1" else _fresh_layer(config, store)
    return HeadOptions(
        weight=weight,
        bias=bias,
        loss=make_loss(config, find_sampling(config).prior(inputs), common.class_counts, common.variance),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        max_norm=_max_norm(config, store),
        max_norm_every=1 if config.max_norm_every == "step" else _iterations_of_an_epoch(config, common),
        schedule=config.schedule,
        n_iterations=config.iterations,
        trainable=method.trainable,
        fc_lr_share=config.fc_lr_share,
        parts=further_parts(config, store, common),
        few_shot=few_shot(config, store, inputs, common) if method.trainable == "weight generator" else None,
    )


def _max_norm(config: FinetuneConfig, store: FeatureStore) -> float | None:
    """The bound; `relative` is a tenth of the way from Phase I's shortest class weight to its longest."""
    if config.max_norm != RELATIVE:
        return config.max_norm
    length = np.linalg.norm(store.classifier[0].astype(np.float64), axis=1)
    return float(length.min() + SHARE * (length.max() - length.min()))


def _iterations_of_an_epoch(config: FinetuneConfig, common: TrainStatistics) -> int:
    return -(-int(common.class_counts.sum()) // config.batch_size)


def _fresh_layer(config: FinetuneConfig, store: FeatureStore) -> ComputedLayer:
    """Uniform within ± 1 / √C, as PyTorch initialises an FC layer, from the seed."""
    weight, bias = store.classifier
    uniform = CounterRNG(config.seed).uniform("fresh weight", 0, 1, weight.size + bias.size)[0]
    values = ((2 * uniform - 1) / np.sqrt(weight.shape[1])).astype(np.float32)
    return values[: weight.size].reshape(weight.shape), values[weight.size :]


def posthoc_layer(config: FinetuneConfig, store: FeatureStore) -> ComputedLayer:
    """The head of a method that computes it without training.

    Raises:
        UserError: weights come out NaN or infinite.
    """
    method, train = METHODS[config.method], store.read("train")
    class_counts = train.class_counts(len(store.class_names))
    own = config.tau, config.distance, config.shrinkage
    trained = Trained(*store.classifier, train.pooled, train.label, class_counts, *own)
    with np.errstate(all="ignore"):
        layer = method.compute(trained)
    if not all(np.isfinite(part).all() for part in layer):
        empty = np.flatnonzero(class_counts == 0)
        named, found = f"--method {config.method}", "makes weights that are NaN or infinite"
        if len(empty):
            name = store.class_names[empty[0]]
            raise UserError(
                f"{named}: {found}, for class {name} has no training rows in the store; use another method"
            )
        if "tau" in method.options:
            raise UserError(f"{named}, --tau {config.tau:g}: {found}; use a --tau closer to 0")
        raise UserError(f"{named}: {found}; use another method")
    return layer
