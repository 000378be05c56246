"""Which options a head depends on: configurations that agree in them share a name and, per seed, a head."""

from dataclasses import replace
from typing import Any

from finetune.config import FinetuneConfig
from finetune.methods.losses import find_loss
from finetune.methods.registry import METHOD_DEFAULTS, find_method

SGD_OPTIONS = ("iterations", "lr", "schedule", "momentum", "weight_decay", "init", "keep")
FOLD_OPTIONS = ["folds", "fold_seed"]
FORMER = {  # methods' own defaults in version 0.1 that have changed since
    "weight-balancing": {"loss": "class-balanced", "weight_decay": 5e-3, "max_norm": 1.0},
}
# Values for runs and sweeps of versions that did not have these options yet.
EARLIER = {
    "rank_by": "overall",
    "max_norm_every": "step",
    "folds": 5,
    "fold_seed": 0,
    "sampling": None,
    "mix_share": None,
    "mix_classes": None,
    "rho": 0.25,
    "shrinkage": 0.1,
    "smooth_head": 0.3,
    "smooth_tail": 0.0,
    "frequency_power": 1.2,
    "isda_strength": 0.5,
    "fc_lr_share": 0.5,
    "alpha": 1.0,
    "fuse_after": None,
    "neighbour_classes": None,
    "covariance": "full",
    "spread": 0.0,
}


def effective_options(config: dict[str, Any]) -> dict[str, Any]:
    """The options that the head of a resolved configuration depends on, except its seed.

    Args:
        config: resolved options by name, as in config.json; missing ones are those of EARLIER.
    """
    config = EARLIER | config
    method = find_method(config["method"])
    names, sampling = ["method", *method.options], method.sampled(config["sampling"])
    if sampling is not None:
        names += ["sampling", "loss", *find_loss(config["loss"]).options, *SGD_OPTIONS, *sampling.options]
        if "head_ratio" in names and not sampling.depends_on_tail(config):
            names.remove("head_ratio")
        if method.trainable == "fc":
            names += ["max_norm", *(["max_norm_every"] if config["max_norm"] is not None else [])]
        if config["keep"] == "best":
            names += ["eval_every", "select_on", "rank_by"]
            names += FOLD_OPTIONS if config["select_on"] == "cv" else []
    return {name: config[name] for name in names}


def without_idle_folds(config: FinetuneConfig) -> FinetuneConfig:
    """The configuration with the default folds where folds have no effect, to keep nothing apart."""
    if config.select_on == "cv":
        return config
    return replace(config, folds=FinetuneConfig.folds, fold_seed=FinetuneConfig.fold_seed)


def named_options(config: dict[str, Any]) -> dict[str, Any]:
    """`effective_options` with None for the method's own defaults, which a name leaves out."""
    method = find_method(config["method"])
    own = METHOD_DEFAULTS | {"loss": method.loss} | method.defaults
    del own["tau"]  # always named: its default is nobody's own in older versions
    found = effective_options(config)
    return {k: None if k in own and own[k] == v else v for k, v in found.items()}


def as_started(config: FinetuneConfig, options: dict[str, Any]) -> FinetuneConfig:
    """A configuration that resumes what was started with `options`, perhaps by an older version.

    Options which that version did not have get the values of EARLIER. Where it used another default for the
    method, and the configuration has today's default, the former one is used.
    """
    known = {name: value for name, value in EARLIER.items() if name not in options}
    if is_former(config.method, options):
        method = find_method(config.method)
        own = method.defaults | {"loss": method.loss}
        former = FORMER[config.method].items()
        known |= {k: v for k, v in former if getattr(config, k) == own[k] and options.get(k) == v}
    return replace(config, **known)


def is_former(method: str, options: dict[str, Any]) -> bool:
    """Whether a run or sweep with `options` was started when the method had other defaults than today."""
    return method in FORMER and "max_norm_every" not in options
