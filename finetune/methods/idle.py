"""Idle options: given by the user, but without effect. The user is told."""

from collections.abc import Iterable
from typing import Any

from finetune.methods.losses import LOSSES
from finetune.methods.options import FOLD_OPTIONS, SGD_OPTIONS, effective_options
from finetune.methods.registry import METHODS, find_method
from store.storage.location import locate
from store.storage.s3 import Bucket

HEAD_OPTIONS = {"loss", "sampling", "max_norm", "max_norm_every", "tail_samples", "rank_by", *SGD_OPTIONS}
DRAW_OPTIONS = {"seed", "window", "prefetch", "eval_every"}  # of methods that train
MAP_OPTIONS = {"residency", "memory"}
CACHE_OPTIONS = {"cache", "cache_gib"}
CV_OPTIONS = set(FOLD_OPTIONS)
NOT_IN_SWEEPS = {"tensorboard"}  # sweeps write no TensorBoard events


def draws(config: dict[str, Any]) -> bool:
    """Whether the head of a configuration depends on its seed."""
    return find_method(config["method"]).sampling is not None


def idle_options(config: dict[str, Any], given: Iterable[str]) -> list[str]:
    """Options that were given and change nothing in a run.

    Args:
        config: its resolved options by name, as in config.json.
        given: names of the options that the user gave.
    """
    every = _head_options() | DRAW_OPTIONS | MAP_OPTIONS | CACHE_OPTIONS | CV_OPTIONS
    return sorted(every.intersection(given) - _used(config))


def idle_in_sweep(configs: list[dict[str, Any]], given: Iterable[str]) -> list[str]:
    """Options that were given and change no head of a sweep.

    Args:
        configs: resolved options of its heads.
        given: names of the options that the user gave.
    """
    used = {"rank_by"}.union(*(_used(config) for config in configs))
    if not any(config["keep"] == "best" for config in configs):
        used -= {"eval_every"}  # a sweep evaluates during training for --keep best only
    if any(draws(config) for config in configs):
        used |= {"seeds"}
    every = _head_options() | DRAW_OPTIONS | MAP_OPTIONS | CACHE_OPTIONS | CV_OPTIONS
    every |= NOT_IN_SWEEPS | {"seeds"}
    return sorted(every.intersection(given) - used)


def _head_options() -> set[str]:
    """Options that heads depend on, with any method or loss."""
    of_plans = (
        one.options for method in METHODS.values() for one in (method.sampling, *method.samplings) if one
    )
    computed = (method.options for method in METHODS.values())
    return HEAD_OPTIONS.union(*of_plans, *computed, *(loss.options for loss in LOSSES.values()))


def _used(config: dict[str, Any]) -> set[str]:
    used = set(effective_options(config)) | {"head_ratio"}  # every run reports head and tail accuracy
    if config["select_on"] == "cv":
        used |= CV_OPTIONS
    method = find_method(config["method"])
    sampling = method.sampled(config["sampling"])
    if sampling is not None:
        used |= DRAW_OPTIONS
        used -= set() if method.samplings else {"sampling"}
        if config["tail_samples"] is not None:  # it determines the batch size
            used |= {"tail_samples", "augmented_per_sample"}
        if sampling.reads_maps:
            used |= MAP_OPTIONS
    if isinstance(locate(config["store"]), Bucket):
        used |= {"cache", "cache_gib"} if config["cache"] is not None else {"cache"}
    return used


def idle_in_words(name: str, configs: list[dict[str, Any]]) -> str:
    """A note, in one line, that an option changes nothing."""
    option = f"--{name.replace('_', '-')}"
    if name in CACHE_OPTIONS:
        return f"{option} changes nothing: only reads of an s3:// store are cached" + (
            ", in the folder given by --cache" if name == "cache_gib" else ""
        )
    if name in NOT_IN_SWEEPS:
        return f"{option} changes nothing: a sweep writes no TensorBoard events; `finetune` does"
    if name in CV_OPTIONS:
        return f"{option} changes nothing: it is for --select-on cv"
    methods = dict.fromkeys(_in_words(config) if draws(config) else config["method"] for config in configs)
    kept = f" and --keep {configs[0]['keep']}" if name == "rank_by" and draws(configs[0]) else ""
    return f"{option} changes nothing for {', '.join(methods)}{kept}"


def _in_words(config: dict[str, Any]) -> str:
    """A method that trains, with what decides which options it depends on."""
    batches = "" if config["sampling"] is None else f" in {config['sampling']} batches"
    return f"{config['method']} with loss {config['loss']}{batches}"
