"""Options that were given and change nothing, which the user should hear of."""

from collections.abc import Iterable
from typing import Any

from finetune.methods.losses import LOSSES
from finetune.methods.options import OF_SGD, effective_options
from finetune.methods.registry import METHODS, find_method
from store.storage.location import locate
from store.storage.s3 import Bucket

OF_HEADS = {"loss", "max_norm", "max_norm_every", "tail_samples", "rank_by", *OF_SGD}  # of any method
OF_DRAWS = {"seed", "window", "prefetch", "eval_every"}  # of methods that take steps
OF_MAPS = {"residency", "memory"}
OF_CACHE = {"cache", "cache_gib"}
NOT_IN_SWEEPS = {"tensorboard"}  # which write no events


def draws(config: dict[str, Any]) -> bool:
    """Whether the head of a configuration depends on its seed."""
    return find_method(config["method"]).sampling is not None


def idle_options(config: dict[str, Any], given: Iterable[str]) -> list[str]:
    """Options that were given and that change nothing of a run.

    Args:
        config: its resolved options by name, as config.json has them.
        given: names of the options that the user named.
    """
    every = _of_heads() | OF_DRAWS | OF_MAPS | OF_CACHE
    return sorted(every.intersection(given) - _used(config))


def idle_in_sweep(configs: list[dict[str, Any]], given: Iterable[str]) -> list[str]:
    """Options that were given and that change nothing of any head of a sweep.

    Args:
        configs: resolved options of its heads.
        given: names of the options that the user named.
    """
    used = {"rank_by"}.union(*(_used(config) for config in configs))
    if not any(config["keep"] == "best" for config in configs):
        used -= {"eval_every"}  # a sweep looks at accuracies under way for early stopping only
    if any(draws(config) for config in configs):
        used |= {"seeds"}
    every = _of_heads() | OF_DRAWS | OF_MAPS | OF_CACHE | NOT_IN_SWEEPS | {"seeds"}
    return sorted(every.intersection(given) - used)


def _of_heads() -> set[str]:
    """Options that the head of some method or loss depends on."""
    of_plans = (method.sampling.options for method in METHODS.values() if method.sampling is not None)
    computed = (method.options for method in METHODS.values())
    return OF_HEADS.union(*of_plans, *computed, *(loss.options for loss in LOSSES.values()))


def _used(config: dict[str, Any]) -> set[str]:
    used = set(effective_options(config)) | {"head_ratio"}  # of which every head and tail is told
    sampling = find_method(config["method"]).sampling
    if sampling is not None:
        used |= OF_DRAWS
        if config["tail_samples"] is not None:  # resolved: it makes the batch's size
            used |= {"tail_samples", "augmented_per_sample"}
        if sampling.reads_maps:
            used |= OF_MAPS
    if isinstance(locate(config["store"]), Bucket):
        used |= {"cache", "cache_gib"} if config["cache"] is not None else {"cache"}
    return used


def idle_in_words(name: str, configs: list[dict[str, Any]]) -> str:
    """An option that changes nothing, in a line."""
    option = f"--{name.replace('_', '-')}"
    if name in OF_CACHE:
        return f"{option} changes nothing: a cache keeps what is read of a store in a bucket" + (
            ", in the folder that --cache names" if name == "cache_gib" else ""
        )
    if name in NOT_IN_SWEEPS:
        return f"{option} changes nothing: a sweep writes no runs; finetune does"
    methods = dict.fromkeys(
        f"{c['method']} with loss {c['loss']}" if draws(c) else c["method"] for c in configs
    )
    kept = f" and --keep {configs[0]['keep']}" if name == "rank_by" and draws(configs[0]) else ""
    return f"{option} changes nothing for {', '.join(methods)}{kept}"
