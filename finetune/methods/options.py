"""Which options a run depends on, so that two runs alike in them have one name, and one head."""

from dataclasses import replace
from typing import Any

from finetune.config import FinetuneConfig
from finetune.methods.losses import find_loss
from finetune.methods.registry import METHOD_DEFAULTS, find_method

OF_SGD = ("iterations", "lr", "schedule", "momentum", "weight_decay", "init", "keep")
FORMER = {  # methods' own values in version 0.1, where they were others
    "weight-balancing": {"loss": "class-balanced", "weight_decay": 5e-3, "max_norm": 1.0},
}
# What a run or sweep that does not say was made with, being older.
EARLIER = {"rank_by": "overall", "max_norm_every": "step"}


def effective_options(config: dict[str, Any]) -> dict[str, Any]:
    """The options that the head of a resolved configuration depends on, besides its seed.

    Args:
        config: resolved options by name, as config.json has them; where they lack some, those of EARLIER.
    """
    config = EARLIER | config
    method = find_method(config["method"])
    names = ["method"]
    if method.sampling is None:
        names += method.options
    else:
        names += ["loss", *find_loss(config["loss"]).options, *OF_SGD, *method.sampling.options]
        if method.trainable == "fc":
            names += ["max_norm", *(["max_norm_every"] if config["max_norm"] is not None else [])]
        if config["keep"] == "best":
            names += ["eval_every", "select_on", "rank_by"]
    return {name: config[name] for name in names}


def named_options(config: dict[str, Any]) -> dict[str, Any]:
    """The same, None in place of what is the method's own: what a name need not tell."""
    method = find_method(config["method"])
    own = METHOD_DEFAULTS | {"loss": method.loss} | method.defaults
    found = effective_options(config)
    return {k: None if k in own and own[k] == v else v for k, v in found.items()}


def as_begun(config: FinetuneConfig, options: dict[str, Any]) -> FinetuneConfig:
    """A configuration that goes on with what was begun with `options`, by an earlier program perhaps.

    Of what that program did not know, it keeps to what was done then; and to what was a method's own then,
    where what is its own today is asked.
    """
    known = {name: value for name, value in EARLIER.items() if name not in options}
    if is_former(config.method, options):
        method = find_method(config.method)
        own = method.defaults | {"loss": method.loss}
        former = FORMER[config.method].items()
        known |= {k: v for k, v in former if getattr(config, k) == own[k] and options.get(k) == v}
    return replace(config, **known)


def is_former(method: str, options: dict[str, Any]) -> bool:
    """Whether a run or sweep was begun with `options` when a method was another than it is today."""
    return method in FORMER and "max_norm_every" not in options
