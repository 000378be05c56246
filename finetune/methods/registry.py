"""What Phase II can do, in one table: what a batch is drawn from, the loss, and what is trained.

A new method is a function (a draw, or a head computed in one pass) and a line of METHODS. The command line
asks here for the names, so numpy is the heaviest thing that is imported before a method is at work.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetune.heads.posthoc import ComputedLayer, Trained, logit_adjustment, nearest_class_mean, tau_norm
from finetune.mixing.fsa import augmentation_plan, fusion_facts
from finetune.sampling.plan import Plan, PlanInputs
from store.options import registered


@dataclass(frozen=True)
class Sampling:
    """How the batches of a method are drawn.

    Attributes:
        draw: the plan of the iterations from a first to before a last.
        prior: (K,) the class distribution of what it draws.
        in_halves: whether a batch is half tail, half head.
        needs_confusing: whether it asks for the confusing classes of each tail class.
        needs_positions: whether it asks for the class-specific and class-generic positions of every map.
        reads_maps: whether its mix reads feature maps.
        options: that its plan depends on, besides the seed.
        facts: what config.json tells of the plan's mix, from what was drawn from, `n_empty` added up over the
            run, and the number of mixed samples; None where there is nothing to tell.
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
    """What a method is made of.

    Attributes:
        description: for the user.
        sampling: of its batches; None where nothing is trained.
        loss: its name, where the user names none.
        trainable: "fc" or "scales".
        defaults: of options that are None where the user names none.
        compute: the head, where nothing is trained.
        options: that this head depends on.
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


def _uniform(inputs: PlanInputs, start: int, stop: int) -> Plan:
    return Plan(inputs.any_rows(start, stop, inputs.batch_size))


def _uniform_prior(inputs: PlanInputs) -> np.ndarray:
    return inputs.row_counts / len(inputs.label)


def _balanced(inputs: PlanInputs, start: int, stop: int) -> Plan:
    return Plan(inputs.balanced_rows(start, stop, inputs.batch_size))


def _balanced_prior(inputs: PlanInputs) -> np.ndarray:
    present = inputs.row_counts > 0
    return present / present.sum()


def _halves(inputs: PlanInputs, start: int, stop: int) -> Plan:
    half = inputs.batch_size // 2
    tail, head = inputs.tail_rows(start, stop, half), inputs.head_rows(start, stop, half)
    return Plan(np.concatenate([tail, head], axis=1))


def _halves_prior(inputs: PlanInputs) -> np.ndarray:
    """Half of it the tail's, drawn by samples or by classes, half the head's, by samples."""
    head, tail = inputs.head_tail.head, inputs.head_tail.tail
    prior = inputs.row_counts.astype(np.float64)
    prior[head] /= 2 * prior[head].sum()
    prior[tail] = 0.5 / len(tail) if inputs.tail_draw == "classes" else prior[tail] / (2 * prior[tail].sum())
    return prior


OF_HALVES = ("batch_size", "head_ratio", "tail_draw")
OF_FUSION = (
    *OF_HALVES,
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
HALVES = Sampling(_halves, _halves_prior, in_halves=True, options=OF_HALVES)
FUSED = Sampling(
    augmentation_plan,
    _halves_prior,
    in_halves=True,
    needs_confusing=True,
    needs_positions=True,
    reads_maps=True,
    options=OF_FUSION,
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
    "no-aug": Method("FSA's batch with real tail samples for the augmented ones (Fig. 9)", HALVES),
    "plain": Method("uniform sampling of all training samples", UNIFORM),
    "crt": Method("a fresh FC layer, classes drawn uniformly", BALANCED, defaults=CRT),
    "lws": Method("one learned scale a class, drawn uniformly", BALANCED, "ce", "scales", LWS),
    "tau-norm": Method("Phase I's weights over their norm to the τ", compute=tau_norm, options=("tau",)),
    "ncm": Method("the nearest class mean", compute=nearest_class_mean, options=("distance",)),
    "logit-adjustment": Method("Phase I's logits less τ · log π", compute=logit_adjustment, options=("tau",)),
    "balanced-softmax": Method("cross-entropy of z + τ · log π", UNIFORM, "balanced-softmax"),
    "class-balanced": Method("cross-entropy weighted by effective numbers", UNIFORM, "class-balanced"),
    "focal": Method("cross-entropy that hard samples weigh in more", UNIFORM, "focal"),
    "weight-balancing": Method(
        "weight decay, MaxNorm and class-balanced loss, as its authors published it",
        UNIFORM,
        "class-balanced-bce",
        "fc",
        WEIGHT_BALANCING,
    ),
}


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        UserError: no method is called so.
    """
    return registered("--method", METHODS, name)
