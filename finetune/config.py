"""Options of Phase II."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from analysis.options import HEAD_RATIO
from extract.options import Device, ShotRule, check_shot_rule
from finetune.cross_validation.options import Folds, FoldSeed
from finetune.methods.loss_options import (
    Beta,
    Distance,
    FcLrShare,
    FocalGamma,
    FrequencyPower,
    IsdaStrength,
    Shrinkage,
    SmoothHead,
    SmoothTail,
    Tau,
    WeightedMean,
)
from finetune.methods.sgd_options import (
    Init,
    Iterations,
    Lr,
    MaxNorm,
    MaxNormEvery,
    Momentum,
    Schedule,
    WeightDecay,
)
from finetune.mixing.options import (
    Alpha,
    AugmentedPerSample,
    ConfusingClasses,
    Covariance,
    Donors,
    FuseAfter,
    GammaMax,
    GammaMin,
    HeadRatio,
    MixClasses,
    MixShare,
    NeighbourClasses,
    Rho,
    Sampling,
    Spread,
    TailDraw,
    TailSamples,
    TauG,
    TauS,
)
from store.errors import UserError
from store.options import MOST, Option, check_bounds, flag

CONFUSING_CLASSES = 3  # paper, sec. 5.1
NEIGHBOUR_CLASSES = 3  # TailCalib, at imbalance 100
BATCH_SIZE = 128  # paper, sec. 5.1
RELATIVE = "relative"


def _methods() -> Iterable[str]:
    from finetune.methods.registry import METHODS  # imports numpy, which `train --help` does without

    return METHODS


def _losses() -> Iterable[str]:
    from finetune.methods.losses import LOSSES

    return LOSSES


@dataclass(frozen=True)
class FinetuneConfig:
    """Options of `finetune`; those of fusion have the paper's defaults (secs. 4.3, 5.1) where it states them.

    tau_s, tau_g and tail_draw, which it does not state, and head_ratio, which is 0.9 there (sec. 5.4), were
    chosen on validation images, as was the method: docs/methods.md has the evidence. `--method fsa` is the
    paper's.
    None means the method's own value (finetune/methods/registry.py), or what the help says; `out=None`, which
    the command line does not offer, writes nothing.
    """

    store: Annotated[
        str, Option("feature store that `extract` wrote: a path, or s3://bucket/name.zarr", "files")
    ]
    out: Annotated[str | None, Option("folder for the results", "files")] = "runs/finetune"
    method: Annotated[
        str,
        Option("method of Phase II: how batches are sampled and what is trained", "method", names=_methods),
    ] = "fsa+balanced-softmax"
    loss: Annotated[
        str | None,
        Option(
            "training loss; those with a class prior take it from the sampled batches",
            "method",
            "the method's",
            names=_losses,
        ),
    ] = None
    seed: Annotated[
        int, Option("random seed for batches, augmentation and fresh weights", "schedule", least=0)
    ] = 0
    iterations: Iterations = 6400
    batch_size: Annotated[
        int | None,
        Option(
            "training samples per SGD step; in the halves of fsa and no-aug, half are of tail classes",
            "schedule",
            "128",
            least=2,
        ),
    ] = None
    lr: Lr = None
    schedule: Schedule = None
    momentum: Momentum = 0.9
    weight_decay: WeightDecay = None
    max_norm: MaxNorm = None
    max_norm_every: MaxNormEvery = None
    init: Init = None
    tau: Tau = None
    focal_gamma: FocalGamma = 1.0
    beta: Beta = 0.9999
    weighted_mean: WeightedMean = "batch"
    frequency_power: FrequencyPower = 1.2
    smooth_head: SmoothHead = 0.3
    smooth_tail: SmoothTail = 0.0
    isda_strength: IsdaStrength = 0.5
    fc_lr_share: FcLrShare = 0.5
    distance: Distance = "euclidean"
    shrinkage: Shrinkage = 0.1
    sampling: Sampling = None
    mix_share: MixShare = None
    mix_classes: MixClasses = None
    rho: Rho = 0.25
    alpha: Alpha = 1.0
    neighbour_classes: NeighbourClasses = None
    covariance: Covariance = "full"
    spread: Spread = 0.0
    tail_samples: TailSamples = None
    augmented_per_sample: AugmentedPerSample = 3
    confusing_classes: ConfusingClasses = None
    donors: Donors = "any"
    gamma_min: GammaMin = 0.0
    gamma_max: GammaMax = 1.0
    head_ratio: HeadRatio = HEAD_RATIO
    tau_s: TauS = 0.7
    tau_g: TauG = 0.1
    tail_draw: TailDraw = "classes"
    fuse_after: FuseAfter = None
    keep: Annotated[
        Literal["last", "best"],
        Option("head to keep: the last one, or the one with the best --select-on accuracy", "choosing"),
    ] = "last"
    select_on: Annotated[
        Literal["val", "cv", "test"],
        Option(
            "images to choose heads and configurations on: val; cv, training images in --folds (stores "
            "of --classifier fit); or test, which flatters the results, and they are marked",
            "choosing",
        ),
    ] = "val"
    rank_by: Annotated[
        Literal["balanced", "overall"],
        Option(
            "accuracy that --keep best and sweeps choose by: mean over classes, or share of images",
            "choosing",
        ),
    ] = "balanced"
    eval_every: Annotated[int, Option("SGD steps between two evaluations", "choosing", least=1)] = 100
    folds: Folds = 5
    fold_seed: FoldSeed = 0
    shot_rule: ShotRule = "decoupling"
    device: Device = "auto"
    residency: Annotated[
        Literal["auto", "device", "host", "stream"],
        Option(
            "where feature maps live: on the device, in host memory, or streamed from the store; does not "
            "change results",
            "machine",
        ),
    ] = "auto"
    memory: Annotated[
        float | None,
        Option("host memory for feature maps, in GiB", "machine", "half of what is free", above=0),
    ] = None
    window: Annotated[
        int,
        Option("SGD steps whose batches are prepared together; does not change results", "machine", least=1),
    ] = 64
    prefetch: Annotated[
        int,
        Option("windows of batches (--window) to prepare ahead; does not change results", "machine", least=0),
    ] = 2
    ckpt: Annotated[str | None, Option("Phase I's checkpoint, if it has moved since extraction", "files")] = (
        None
    )
    cache: Annotated[
        str | None, Option("local folder for caching reads of an s3:// store", "files", "none")
    ] = None
    cache_gib: Annotated[float, Option("maximum size of the --cache folder, in GiB", "files", above=0)] = 20
    tensorboard: Annotated[
        bool, Option("also write metrics as TensorBoard event files (pip install tensorboard)", "output")
    ] = False
    resume: Annotated[bool, Option("resume what was interrupted in --out", "files")] = False
    overwrite: Annotated[bool, Option("replace what an earlier command wrote to --out", "files")] = False

    @property
    def n_tail(self) -> int:
        """N_t, tail samples per batch of 2 · N_t · (1 + N_a) rows (paper, sec. 4.3)."""
        return self.tail_samples or (self.batch_size or BATCH_SIZE) // (2 * (1 + self.augmented_per_sample))

    def resolved(self, n_classes: int) -> "FinetuneConfig":
        """A copy with values in place of None.

        Raises:
            UserError: a value is out of range, or the method or loss is unknown.
        """
        from finetune.methods.registry import METHOD_DEFAULTS, check_loss, find_method

        method = find_method(self.method)
        self._check(n_classes)
        sampling = method.sampled(self.sampling)
        own = METHOD_DEFAULTS | {"loss": method.loss} | method.defaults
        given = {name: value for name in own if (value := getattr(self, name)) is not None}
        others = None if sampling is method.sampling else sampling.name
        config = replace(self, **(own | given), sampling=others)
        check_loss(config)
        n_confusing = self.confusing_classes or min(CONFUSING_CLASSES, n_classes - 1)
        n_nearest = self.neighbour_classes or min(NEIGHBOUR_CLASSES, n_classes)
        config = replace(config, confusing_classes=n_confusing, neighbour_classes=n_nearest)
        if self.fuse_after is not None and self.fuse_after.lower() == "none":  # as in a --grid
            config = replace(config, fuse_after=None)
        if self.tail_samples is None and not (sampling is not None and sampling.of_tail_samples):
            return replace(config, batch_size=self.batch_size or BATCH_SIZE)
        batch_size = 2 * self.n_tail * (1 + self.augmented_per_sample)
        return replace(config, batch_size=batch_size, tail_samples=self.n_tail)

    def _check(self, n_classes: int) -> None:
        self.check_numbers(n_classes)
        self._check_batch()

    def check_numbers(self, n_classes: int) -> None:
        """Raise UserError for a number that is out of range, for a store with `n_classes` classes."""
        check_bounds(self)
        check_shot_rule(self.shot_rule)
        for name in ("tau_s", "tau_g"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"{flag(name)} {getattr(self, name):g}: must lie between 0 and 1")
        if self.tau is not None and not -MOST < self.tau < MOST:
            raise UserError(f"--tau {self.tau:g}: must be a number between -2^32 and 2^32")
        if not 0 <= self.beta < 1:
            raise UserError(f"--beta {self.beta:g}: must be at least 0, and below 1")
        if not 0 <= self.gamma_min <= self.gamma_max <= 1:
            found = f"--gamma-min {self.gamma_min:g}, --gamma-max {self.gamma_max:g}"
            raise UserError(f"{found}: must be shares from 0 to 1, the first not larger than the second")
        if self.confusing_classes is not None and self.confusing_classes > n_classes - 1:
            raise UserError(
                f"--confusing-classes {self.confusing_classes}: the store has {n_classes} classes, "
                f"so at most {n_classes - 1} can be confused with one"
            )

    def _check_batch(self) -> None:
        from finetune.methods.registry import find_method

        unit, sampling = 2 * (1 + self.augmented_per_sample), find_method(self.method).sampled(self.sampling)
        size = self.batch_size or BATCH_SIZE
        if self.tail_samples is None and not (sampling is not None and sampling.of_tail_samples):
            if sampling is not None and sampling.in_halves and size % 2:
                raise UserError(
                    f"--batch-size {size}: must be even, so that the tail is half of it; try {size + 1}"
                )
            return
        if self.batch_size is None:
            if not self.n_tail:
                raise UserError(
                    f"--augmented-per-sample {self.augmented_per_sample}: a batch of {BATCH_SIZE} has no "
                    f"room for a tail sample with so many; lower it, or set --batch-size to {unit} or more"
                )
            return
        if self.tail_samples is not None and self.batch_size != unit * self.tail_samples:
            raise UserError(
                f"--batch-size {self.batch_size}: {self.tail_samples} tail samples with "
                f"{self.augmented_per_sample} augmented ones each make {unit * self.tail_samples}; "
                "give only one of --batch-size and --tail-samples"
            )
        if self.batch_size % unit or not self.n_tail:
            raise UserError(
                f"--batch-size {self.batch_size}: must be a multiple of 2·(1 + augmented per sample) = "
                f"{unit}, so that the tail is half of the batch; "
                f"try {max(unit, self.batch_size // unit * unit)}"
            )
