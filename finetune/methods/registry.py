"""Registry of methods: how batches are sampled, the loss, and what is trained.

A new method is a function (a draw, or a head computed in one pass) and a line in METHODS. The command line
imports this for the names, so nothing heavier than numpy is imported here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from finetune.heads.posthoc import (
    ComputedLayer,
    Trained,
    linear_discriminant,
    logit_adjustment,
    multiplicative_adjustment,
    nearest_class_mean,
    tau_norm,
)
from finetune.methods.losses import find_loss
from finetune.methods.sampling import ANY, BALANCED, EPISODES, OF_TAIL_SAMPLES, UNIFORM, Sampling, mixed
from finetune.mixing.fsa import augmentation_plan, fused, fusion_facts
from finetune.mixing.h2t import swapped
from finetune.mixing.mixup import mixed_up, prior_of_mixup, prior_of_remix, remixed
from finetune.mixing.tailcalib import calibrated
from finetune.sampling.rows import HALVES_OPTIONS
from store.errors import UserError
from store.options import registered


@dataclass(frozen=True)
class Method:
    """A method of Phase II: trained on sampled batches, or computed without training.

    Attributes:
        description: for the user.
        sampling: how its batches are sampled, unless the user says otherwise; None if it does not train.
        loss: name of its default loss.
        trainable: what is trained; see `HeadOptions`.
        defaults: its own defaults of options that are None unless the user gives them.
        compute: computes the head; None if it trains.
        options: options that the head depends on, besides those of the loss, of SGD and of the batches.
        samplings: what `--sampling` chooses from.
    """

    description: str
    sampling: Sampling | None = None
    loss: str = "ce"
    trainable: str = "fc"
    defaults: dict[str, Any] = field(default_factory=dict)
    compute: Callable[[Trained], ComputedLayer] | None = None
    options: tuple[str, ...] = ()
    samplings: tuple[Sampling, ...] = ()

    def sampled(self, name: str | None) -> Sampling | None:
        """The sampling of a name, or the method's own; None if it does not train."""
        return next((one for one in self.samplings if one.name == name), self.sampling)


VECTOR_OPTIONS = ("confusing_classes", "donors", "gamma_min", "gamma_max", "tau_s", "tau_g")
FUSION_OPTIONS = (*HALVES_OPTIONS, "augmented_per_sample", *VECTOR_OPTIONS)
NEEDS = {"needs_confusing": True, "needs_positions": True, "reads_maps": True}
OF_FSA = NEEDS | {"of_fsa": True, "facts": fusion_facts}
FUSED = replace(OF_TAIL_SAMPLES, draw=augmentation_plan, options=(*FUSION_OPTIONS, "fuse_after"), **OF_FSA)
FUSED_ANY = (FUSED, *mixed(fused, VECTOR_OPTIONS, **OF_FSA)[:2])  # Algorithm 1 is the one in halves
SWAPPED_ANY = mixed(swapped, ("rho",))
MIXED_UP_ANY = mixed(mixed_up, ("alpha",), prior_of_mixup, two_labels=True)
REMIXED_ANY = mixed(remixed, ("alpha",), prior_of_remix, two_labels=True)
CALIBRATED_ANY = mixed(calibrated, ("neighbour_classes", "covariance", "spread"), needs_class_noise=True)

CRT = {"lr": 0.1, "schedule": "cosine", "init": "fresh", "weight_decay": 5e-4}
LWS = {"lr": 0.1, "schedule": "cosine"}
MARC = {"lr": 0.05, "schedule": "cosine", "weight_decay": 5e-4}
DISALIGN = {"lr": 0.1, "schedule": "cosine", "weight_decay": 5e-4}
FSLWF = DISALIGN | {"lr": 0.01}
OLTR = DISALIGN | {"init": "fresh"}
MISLAS = {"lr": 0.1, "schedule": "cosine", "weight_decay": 2e-4}
FSA = {"mix_share": 0.5, "mix_classes": "tail"}
CORRECTED = {"tau": 1.25, "weight_decay": 0.01, "mix_share": 0.25}  # docs/methods.md has the evidence
MIXUP = H2T = ISDA = {"lr": 0.02, "schedule": "cosine", "weight_decay": 5e-4}
TAILCALIB = H2T | {"mix_classes": "fill"}
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
    "mix_share": 1.0,
    "mix_classes": "all",
    "tau": 1.0,
}


def _trained(
    description: str,
    sampling: Sampling,
    *rest: Any,
    samplings: tuple[Sampling, ...] = ANY,
    options: tuple[str, ...] = (),
) -> Method:
    """A method that trains on batches of its own sampling, or of one that the user chooses."""
    return Method(description, sampling, *rest, samplings=samplings, options=options)


METHODS = {
    "fsa": _trained(
        "feature space augmentation, Algorithm 1 of the paper", FUSED, "ce", "fc", FSA, samplings=FUSED_ANY
    ),
    "fsa+balanced-softmax": _trained(
        "FSA's fused samples in uniform batches, with a loss that corrects for the class shares",
        FUSED_ANY[1],
        "balanced-softmax",
        "fc",
        FSA | CORRECTED,
        samplings=FUSED_ANY,
    ),
    "no-aug": _trained(
        "FSA's batch, with real tail samples instead of augmented ones (Fig. 9)",
        OF_TAIL_SAMPLES,
        samplings=(UNIFORM, BALANCED, OF_TAIL_SAMPLES),
    ),
    "plain": _trained("uniform sampling of all training samples", UNIFORM),
    "crt": _trained("a fresh FC layer, classes drawn uniformly", BALANCED, "ce", "fc", CRT),
    "lws": _trained("one learned scale per class, classes drawn uniformly", BALANCED, "ce", "scales", LWS),
    "marc": _trained(
        "a learned scale and margin per class, cross-entropy weighted by inverse frequency",
        UNIFORM,
        "re-weighted",
        "margins",
        MARC,
    ),
    "mislas": _trained(
        "a learned scale per class and the FC layer, label-aware smoothing, classes drawn uniformly",
        BALANCED,
        "label-aware-smoothing",
        "scales and fc",
        MISLAS,
        options=("fc_lr_share",),
    ),
    "disalign": _trained(
        "a learned scale and summand per class, as far as an image's learned confidence says, "
        "cross-entropy weighted by inverse frequency",
        UNIFORM,
        "re-weighted",
        "alignment",
        DISALIGN,
    ),
    "oltr": _trained(
        "a meta-embedding that recalls class means, and a cosine classifier, classes drawn uniformly",
        BALANCED,
        "ce",
        "meta-embedding",
        OLTR,
    ),
    "fslwf": _trained(
        "a cosine classifier with generated weights for rare classes, which head classes play in training",
        EPISODES,
        "ce",
        "weight generator",
        FSLWF,
        samplings=(),
    ),
    "h2t": _trained(
        "channels of any row in rows of classes drawn uniformly",
        SWAPPED_ANY[1],
        "ce",
        "fc",
        H2T,
        samplings=SWAPPED_ANY,
    ),
    "mixup": _trained(
        "means of two rows of classes drawn uniformly, with both their labels",
        MIXED_UP_ANY[1],
        "ce",
        "fc",
        MIXUP,
        samplings=MIXED_UP_ANY,
    ),
    "remix": _trained(
        "mixup in which a rare class takes all of the label from a frequent one, uniform sampling",
        REMIXED_ANY[0],
        "ce",
        "fc",
        MIXUP,
        samplings=REMIXED_ANY,
    ),
    "tailcalib": _trained(
        "samples of Gaussians around rows and their nearest class means, classes drawn uniformly",
        CALIBRATED_ANY[1],
        "ce",
        "fc",
        TAILCALIB,
        samplings=CALIBRATED_ANY,
    ),
    "tau-norm": Method("Phase I's weights over their norm^τ", compute=tau_norm, options=("tau",)),
    "ncm": Method("nearest class mean", compute=nearest_class_mean, options=("distance",)),
    "logit-adjustment": Method("Phase I's logits − τ · log π", compute=logit_adjustment, options=("tau",)),
    "multiplicative-adjustment": Method(
        "Phase I's logits · π^−τ", compute=multiplicative_adjustment, options=("tau",)
    ),
    "lda": Method(
        "linear discriminant analysis, classes equally frequent",
        compute=linear_discriminant,
        options=("shrinkage",),
    ),
    "balanced-softmax": _trained("cross-entropy of z + τ · log π", UNIFORM, "balanced-softmax"),
    "class-balanced": _trained("cross-entropy weighted by effective numbers", UNIFORM, "class-balanced"),
    "isda": _trained(
        "cross-entropy over all shifts of a row within its class's variance, classes drawn uniformly",
        BALANCED,
        "isda",
        "fc",
        ISDA,
    ),
    "focal": _trained("cross-entropy with more weight on hard samples", UNIFORM, "focal"),
    "weight-balancing": _trained(
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


def check_loss(config: Any) -> None:
    """Raise UserError if there is no loss as resolved options ask for, or the method cannot have it."""
    kind, method, sampling = find_loss(config.loss), find_method(config.method), find_sampling(config)
    if method.trainable == "weight generator" and config.loss != "ce":
        raise UserError(
            f"--loss {config.loss}: --method {config.method} learns in episodes that have some classes each, "
            "by cross-entropy; leave it out"
        )
    if not kind.of_variance or sampling is None or (method.trainable == "fc" and not sampling.two_labels):
        return
    reason = "has samples of two labels" if sampling.two_labels else "does not train an FC layer alone"
    raise UserError(f"--loss {config.loss}: --method {config.method} {reason}; use another loss or method")


def find_sampling(config: Any) -> Sampling | None:
    """How the batches of resolved options are sampled; None if their method does not train."""
    return METHODS[config.method].sampled(config.sampling)
