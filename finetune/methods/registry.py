"""Registry of methods: how batches are sampled, the loss, and what is trained.

A new method is a function (a draw, or a head computed in one pass) and a line in METHODS. The command line
imports this for the names, so nothing heavier than numpy is imported here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from finetune.heads.posthoc import ComputedLayer, Trained, logit_adjustment, nearest_class_mean, tau_norm
from finetune.mixing.fsa import augmentation_plan, fusion_facts
from finetune.sampling.plan import Plan, PlanInputs, drawn_anywhere
from store.options import registered


@dataclass(frozen=True)
class Sampling:
    """How the batches of a method are sampled.

    Attributes:
        draw: draws the plan of iterations `start` to `stop` (exclusive); see `drawn_anywhere`.
        prior: (K,) class distribution of the rows that it draws.
        in_halves: whether a batch is half tail, half head.
        needs_confusing: whether it needs the confusing classes of each tail class.
        needs_positions: whether it needs the class-specific and class-generic positions of every map.
        reads_maps: whether its mix reads feature maps.
        options: options that the plan depends on, except the seed.
        facts: what config.json records of the mix, from the plan's inputs, the sum of `n_empty` over the run
            and the number of mixed samples; None for nothing.
    """

    draw: Callable[[PlanInputs, int, int], Plan]
    prior: Callable[[PlanInputs], np.ndarray]
    in_halves: bool = False
    needs_confusing: bool = False
    needs_positions: bool = False
    reads_maps: bool = False
    options: tuple[str, ...] = ("batch_size",)
    facts: Callable[[PlanInputs, np.ndarray, int], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Method:
    """A method of Phase II: trained on sampled batches, or computed without training.

    Attributes:
        description: for the user.
        sampling: how its batches are sampled; None if it does not train.
        loss: name of its default loss.
        trainable: "fc" or "scales".
        defaults: its own defaults of options that are None unless the user gives them.
        compute: computes the head; None if it trains.
        options: options that a computed head depends on.
    """

    description: str
    sampling: Sampling | None = None
    loss: str = "ce"
    trainable: str = "fc"
    defaults: dict[str, Any] = field(default_factory=dict)
    compute: Callable[[Trained], ComputedLayer] | None = None
    options: tuple[str, ...] = ()

    @property
    def in_halves(self) -> bool:
        """Whether a batch is half tail, half head."""
        return self.sampling is not None and self.sampling.in_halves


@drawn_anywhere
def _uniform(inputs: PlanInputs, start: int, stop: int) -> Plan:
    return Plan(inputs.any_rows(start, stop, inputs.batch_size))


def _uniform_prior(inputs: PlanInputs) -> np.ndarray:
    return inputs.row_counts / len(inputs.label)


@drawn_anywhere
def _balanced(inputs: PlanInputs, start: int, stop: int) -> Plan:
    return Plan(inputs.balanced_rows(start, stop, inputs.batch_size))


def _balanced_prior(inputs: PlanInputs) -> np.ndarray:
    present = inputs.row_counts > 0
    return present / present.sum()


@drawn_anywhere
def _halves(inputs: PlanInputs, start: int, stop: int) -> Plan:
    half = inputs.batch_size // 2
    tail, head = inputs.tail_rows(start, stop, half), inputs.head_rows(start, stop, half)
    return Plan(array_namespace(tail).concat([tail, head], axis=1))


def _halves_prior(inputs: PlanInputs) -> np.ndarray:
    """Half tail, drawn over samples or classes; half head, drawn over samples."""
    head, tail = inputs.head_tail.head, inputs.head_tail.tail
    prior = inputs.row_counts.astype(np.float64)
    prior[head] /= 2 * prior[head].sum()
    prior[tail] = 0.5 / len(tail) if inputs.tail_draw == "classes" else prior[tail] / (2 * prior[tail].sum())
    return prior


HALVES_OPTIONS = ("batch_size", "head_ratio", "tail_draw")
FUSION_OPTIONS = (
    *HALVES_OPTIONS,
    "augmented_per_sample",
    "confusing_classes",
    "donors",
    "gamma_min",
    "gamma_max",
    "tau_s",
    "tau_g",
)
UNIFORM = Sampling(_uniform, _uniform_prior)
BALANCED = Sampling(_balanced, _balanced_prior)
HALVES = Sampling(_halves, _halves_prior, in_halves=True, options=HALVES_OPTIONS)
FUSED = Sampling(
    augmentation_plan,
    _halves_prior,
    in_halves=True,
    needs_confusing=True,
    needs_positions=True,
    reads_maps=True,
    options=FUSION_OPTIONS,
    facts=fusion_facts,
)

CRT = {"lr": 0.1, "schedule": "cosine", "init": "fresh", "weight_decay": 5e-4}
LWS = {"lr": 0.1, "schedule": "cosine"}
WEIGHT_BALANCING = {
    "lr": 0.01,
    "schedule": "cosine",
    "weight_decay": 0.1,
    "max_norm": "relative",
    "max_norm_every": "epoch",
}
METHOD_DEFAULTS = {
    "lr": 0.001,
    "schedule": "constant",
    "init": "phase1",
    "weight_decay": 0.0,
    "max_norm": None,
    "max_norm_every": "step",
}

METHODS = {
    "fsa": Method("feature space augmentation, Algorithm 1 of the paper", FUSED),
    "no-aug": Method("FSA's batch, with real tail samples instead of augmented ones (Fig. 9)", HALVES),
    "plain": Method("uniform sampling of all training samples", UNIFORM),
    "crt": Method("a fresh FC layer, classes drawn uniformly", BALANCED, defaults=CRT),
    "lws": Method("one learned scale per class, classes drawn uniformly", BALANCED, "ce", "scales", LWS),
    "tau-norm": Method("Phase I's weights over their norm^τ", compute=tau_norm, options=("tau",)),
    "ncm": Method("nearest class mean", compute=nearest_class_mean, options=("distance",)),
    "logit-adjustment": Method("Phase I's logits − τ · log π", compute=logit_adjustment, options=("tau",)),
    "balanced-softmax": Method("cross-entropy of z + τ · log π", UNIFORM, "balanced-softmax"),
    "class-balanced": Method("cross-entropy weighted by effective numbers", UNIFORM, "class-balanced"),
    "focal": Method("cross-entropy with more weight on hard samples", UNIFORM, "focal"),
    "weight-balancing": Method(
        "weight decay, MaxNorm and class-balanced loss, as its authors published it",
        UNIFORM,
        "class-balanced-bce",
        "fc",
        WEIGHT_BALANCING,
    ),
}


def find_method(name: str) -> Method:
    """The method with a name.

    Raises:
        UserError: there is no such method.
    """
    return registered("--method", METHODS, name)
