"""Phase II's options."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from analysis.options import HEAD_RATIO
from extract.config import ShotRule, check_shot_rule
from store.choices import OneOf
from store.errors import MOST, UserError, check_at_least

CONFUSING_CLASSES = 3  # paper, sec. 5.1
BATCH_SIZE = 128  # paper, sec. 5.1
RELATIVE = "relative"


def _methods() -> Iterable[str]:
    from finetune.methods.registry import METHODS  # numpy, which --help of Phase I does without

    return METHODS


def _losses() -> Iterable[str]:
    from finetune.methods.losses import LOSSES

    return LOSSES


@dataclass(frozen=True)
class FinetuneConfig:
    """Options of `finetune`; the defaults are the paper's (secs. 4.3, 5.1) where it states them.

    The rest (tau_s, tau_g, tail_draw), and head_ratio, which is 0.9 there (sec. 5.4), were chosen on
    validation images: docs/methods.md has the evidence.
    None is the method's own value (finetune/methods/registry.py), or what the help says; of `out`, which the
    command line does not offer: nothing is written.
    """

    store: Annotated[str, "feature store that `extract` wrote: a path, or s3://bucket/name.zarr"]
    out: Annotated[str | None, "folder of the run"] = "runs/finetune"
    method: Annotated[str, "what a batch is made of, and what is trained", OneOf(_methods)] = "fsa"
    loss: Annotated[
        str | None,
        "of the batches' own class distribution; the method's own if not given",
        OneOf(_losses),
    ] = None
    seed: Annotated[int, "of every draw"] = 0
    iterations: Annotated[int, "SGD steps"] = 6400
    batch_size: Annotated[int | None, "rows of a batch, half of them for the tail; 128"] = None
    lr: Annotated[float | None, "learning rate; 0.001, or the method's own"] = None
    schedule: Annotated[
        Literal["constant", "cosine"] | None, "of the learning rate; constant, or the method's own"
    ] = None
    momentum: Annotated[float, "of SGD"] = 0.9
    weight_decay: Annotated[float | None, "of SGD; 0, or the method's own"] = None
    max_norm: Annotated[
        float | Literal["relative"] | None,
        "bound of the length of every class's weight: a number, or relative to Phase I's, which is the "
        "shortest plus a tenth of the difference to the longest (weight-balancing's own)",
    ] = None
    max_norm_every: Annotated[
        Literal["step", "epoch"] | None,
        "when weights are cut to that bound: after every step, or after every pass over as many rows as "
        "there are training images; step, or the method's own",
    ] = None
    init: Annotated[
        Literal["phase1", "fresh"] | None, "FC layer at the start; phase1, or the method's own"
    ] = None
    tau: Annotated[float, "strength: of log π in losses and logits, of the norm in tau-norm"] = 1.0
    focal_gamma: Annotated[float, "exponent of the focal loss"] = 1.0
    beta: Annotated[float, "of the class-balanced loss's effective numbers"] = 0.9999
    weighted_mean: Annotated[
        Literal["batch", "weights"], "class-balanced loss: divide by the batch's size, or by its weights"
    ] = "batch"
    distance: Annotated[Literal["euclidean", "cosine"], "of ncm"] = "euclidean"
    tail_samples: Annotated[int | None, "N_t, tail samples of a batch; as many as make batch-size"] = None
    augmented_per_sample: Annotated[int, "N_a, augmented samples for each tail sample"] = 3
    confusing_classes: Annotated[
        int | None, "N_f, classes that lend class-generic vectors; 3, or all others where they are fewer"
    ] = None
    donors: Annotated[
        Literal["any", "head"], "classes that may lend generic vectors: all, or head classes only"
    ] = "any"
    gamma_min: Annotated[float, "least share of class-specific vectors"] = 0.0
    gamma_max: Annotated[float, "largest share; uniform between the two"] = 1.0
    head_ratio: Annotated[float, "h_r, share of the training samples in the head classes"] = HEAD_RATIO
    tau_s: Annotated[float, "positions with a CAM above it are class-specific"] = 0.7
    tau_g: Annotated[float, "positions with a CAM below it are class-generic"] = 0.1
    tail_draw: Annotated[
        Literal["samples", "classes"], "draw tail samples uniformly, or a tail class first"
    ] = "classes"
    keep: Annotated[
        Literal["last", "best"], "the head of the last step, or of the best accuracy on --select-on"
    ] = "last"
    select_on: Annotated[
        Literal["val", "test"], "split that choices may look at; test is printed with every number"
    ] = "val"
    rank_by: Annotated[
        Literal["balanced", "overall"],
        "what --keep best and a sweep choose by: mean accuracy over classes, or share of images",
    ] = "balanced"
    eval_every: Annotated[int, "iterations between accuracies on that split"] = 100
    shot_rule: ShotRule = "decoupling"
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    residency: Annotated[
        Literal["auto", "device", "host", "stream"], "where the feature maps live; changes no result"
    ] = "auto"
    memory: Annotated[float | None, "GiB of the host for feature maps; half of what is free"] = None
    window: Annotated[int, "iterations put together at once; changes no result"] = 64
    prefetch: Annotated[int, "windows made ahead; changes no result"] = 2
    ckpt: Annotated[str | None, "Phase I's checkpoint, if it moved since extraction"] = None
    cache: Annotated[str | None, "folder that keeps what is read of a store in a bucket"] = None
    cache_gib: Annotated[float, "the most that it may hold"] = 20
    tensorboard: Annotated[bool, "also write metrics as event files (pip install tensorboard)"] = False
    resume: Annotated[bool, "go on with an interrupted run in --out"] = False
    overwrite: Annotated[bool, "replace an earlier run in --out"] = False

    @property
    def n_tail(self) -> int:
        """N_t, tail samples in a batch: 2 · N_t · (1 + N_a) rows in all (paper, sec. 4.3)."""
        return self.tail_samples or (self.batch_size or BATCH_SIZE) // (2 * (1 + self.augmented_per_sample))

    def resolved(self, n_classes: int) -> "FinetuneConfig":
        """The same with values in place of None.

        Raises:
            UserError: a value out of its range, or a method or loss that is unknown.
        """
        from finetune.methods.losses import find_loss
        from finetune.methods.registry import METHOD_DEFAULTS, find_method

        method = find_method(self.method)
        self._check(n_classes)
        own = METHOD_DEFAULTS | {"loss": method.loss} | method.defaults
        given = {name: value for name in own if (value := getattr(self, name)) is not None}
        config = replace(self, **(own | given))
        find_loss(config.loss)
        n_confusing = self.confusing_classes or min(CONFUSING_CLASSES, n_classes - 1)
        config = replace(config, confusing_classes=n_confusing)
        if self.tail_samples is None and not method.in_halves:
            return replace(config, batch_size=self.batch_size or BATCH_SIZE)
        batch_size = 2 * self.n_tail * (1 + self.augmented_per_sample)
        return replace(config, batch_size=batch_size, tail_samples=self.n_tail)

    def _check(self, n_classes: int) -> None:
        self.check_numbers(n_classes)
        self._check_batch()

    def check_numbers(self, n_classes: int) -> None:
        """Raise UserError for a number that no method takes, where a store has so many classes."""
        check_at_least(self, iterations=1, batch_size=2, augmented_per_sample=1, confusing_classes=1)
        check_at_least(self, eval_every=1, seed=0, momentum=0, tail_samples=1, window=1, prefetch=0)
        check_at_least(self, weight_decay=0, focal_gamma=0)
        check_shot_rule(self.shot_rule)
        for name in ("tau_s", "tau_g"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"{option(name)} {getattr(self, name):g}: must lie between 0 and 1")
        for name in ("lr", "max_norm", "memory", "cache_gib"):
            value = getattr(self, name)
            if value not in (None, RELATIVE) and not 0 < value < MOST:
                raise UserError(f"{option(name)} {value:g}: must be above 0, and below 2^32")
        if not -MOST < self.tau < MOST:
            raise UserError(f"--tau {self.tau:g}: must be a number between -2^32 and 2^32")
        if not 0 <= self.beta < 1:
            raise UserError(f"--beta {self.beta:g}: must be at least 0, and below 1")
        if not 0 <= self.gamma_min <= self.gamma_max <= 1:
            found = f"--gamma-min {self.gamma_min:g}, --gamma-max {self.gamma_max:g}"
            raise UserError(f"{found}: must be shares, 0 to 1, in this order")
        if self.confusing_classes is not None and self.confusing_classes > n_classes - 1:
            raise UserError(
                f"--confusing-classes {self.confusing_classes}: the store has {n_classes} classes, "
                f"so at most {n_classes - 1} can be confused with one"
            )

    def _check_batch(self) -> None:
        from finetune.methods.registry import find_method

        unit = 2 * (1 + self.augmented_per_sample)
        if self.tail_samples is None and not find_method(self.method).in_halves:
            return
        if self.batch_size is None:
            if not self.n_tail:
                raise UserError(
                    f"--augmented-per-sample {self.augmented_per_sample}: a batch of {BATCH_SIZE} holds no "
                    f"tail sample with so many; lower it, or name a --batch-size of {unit} or more"
                )
            return
        if self.tail_samples is not None and self.batch_size != unit * self.tail_samples:
            raise UserError(
                f"--batch-size {self.batch_size}: {self.tail_samples} tail samples with "
                f"{self.augmented_per_sample} augmented ones each make {unit * self.tail_samples}; "
                "name one of --batch-size and --tail-samples"
            )
        if self.batch_size % unit or not self.n_tail:
            raise UserError(
                f"--batch-size {self.batch_size}: must be a multiple of 2·(1 + augmented per sample) = "
                f"{unit}, so that the tail is half of the batch; "
                f"try {max(unit, self.batch_size // unit * unit)}"
            )


def option(name: str) -> str:
    """How a field is spelled on the command line."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class AnalyzeConfig:
    """Options of `analyze`. The confusion matrix is the first run's configuration's."""

    runs: tuple[str, ...]
    out: Annotated[str, "folder of the tables and figures"] = "report"
    shot_rule: ShotRule = "decoupling"
    rank_by: Annotated[
        Literal["balanced", "overall"] | None, "what sweeps are ranked by; as they were made, if not given"
    ] = None
