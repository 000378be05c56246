"""Phase II's options."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from analysis.options import HEAD_RATIO
from extract.options import Device, ShotRule, check_shot_rule
from store.errors import UserError
from store.options import MOST, Option, check_bounds, flag

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

    store: Annotated[
        str, Option("feature store that `extract` wrote: a path, or s3://bucket/name.zarr", "files")
    ]
    out: Annotated[str | None, Option("folder for the results", "files")] = "runs/finetune"
    method: Annotated[
        str,
        Option("method of Phase II: what a batch is made of, and what is trained", "method", names=_methods),
    ] = "fsa"
    loss: Annotated[
        str | None,
        Option(
            "loss, with the class distribution of the batches for its prior",
            "method",
            "the method's",
            names=_losses,
        ),
    ] = None
    seed: Annotated[
        int, Option("random seed of batches, augmentation and fresh weights", "schedule", least=0)
    ] = 0
    iterations: Annotated[int, Option("SGD steps", "schedule", least=1)] = 6400
    batch_size: Annotated[
        int | None,
        Option(
            "training samples in an SGD step; fsa and no-aug take half of them from the tail",
            "schedule",
            "128",
            least=2,
        ),
    ] = None
    lr: Annotated[
        float | None, Option("initial learning rate", "schedule", "0.001, or the method's", above=0)
    ] = None
    schedule: Annotated[
        Literal["constant", "cosine"] | None,
        Option("course of the learning rate", "schedule", "constant, or the method's"),
    ] = None
    momentum: Annotated[float, Option("SGD momentum", "schedule", least=0)] = 0.9
    weight_decay: Annotated[
        float | None,
        Option("L2 penalty (weight decay) on the trained weights", "schedule", "0, or the method's", least=0),
    ] = None
    max_norm: Annotated[
        float | Literal["relative"] | None,
        Option(
            "upper bound on the norm of each class's weights: a number, or relative: the shortest norm in "
            "Phase I plus a tenth of the difference to the longest",
            "method",
            "none, or the method's",
            above=0,
        ),
    ] = None
    max_norm_every: Annotated[
        Literal["step", "epoch"] | None,
        Option(
            "how often norms are cut to --max-norm; an epoch is as many samples as there are training images",
            "method",
            "step, or the method's",
        ),
    ] = None
    init: Annotated[
        Literal["phase1", "fresh"] | None,
        Option("FC layer to start from: Phase I's, or random weights", "method", "phase1, or the method's"),
    ] = None
    tau: Annotated[
        float,
        Option(
            "strength τ: of log π in balanced-softmax and logit-adjustment, of the norm in tau-norm", "method"
        ),
    ] = 1.0
    focal_gamma: Annotated[float, Option("exponent γ of the focal loss", "method", least=0)] = 1.0
    beta: Annotated[
        float, Option("β of the effective number of samples, in class-balanced losses", "method")
    ] = 0.9999
    weighted_mean: Annotated[
        Literal["batch", "weights"],
        Option("what the class-balanced loss is divided by: batch size, or sum of the weights", "method"),
    ] = "batch"
    distance: Annotated[
        Literal["euclidean", "cosine"], Option("distance to the class means, in ncm", "method")
    ] = "euclidean"
    tail_samples: Annotated[
        int | None,
        Option("tail samples in a batch (N_t)", "augmentation", "as many as fill --batch-size", least=1),
    ] = None
    augmented_per_sample: Annotated[
        int, Option("augmented samples for each tail sample (N_a)", "augmentation", least=1)
    ] = 3
    confusing_classes: Annotated[
        int | None,
        Option(
            "most confusing classes of each class, which lend it class-generic vectors (N_f)",
            "augmentation",
            "3, or all others if fewer",
            least=1,
        ),
    ] = None
    donors: Annotated[
        Literal["any", "head"],
        Option("classes that may lend class-generic vectors: any, or head classes alone", "augmentation"),
    ] = "any"
    gamma_min: Annotated[
        float, Option("smallest share of class-specific vectors in an augmented sample", "augmentation")
    ] = 0.0
    gamma_max: Annotated[
        float,
        Option(
            "largest share of class-specific vectors in an augmented sample; shares are drawn uniformly",
            "augmentation",
        ),
    ] = 1.0
    head_ratio: Annotated[
        float, Option("share of the training samples that head classes hold (h_r)", "augmentation")
    ] = HEAD_RATIO
    tau_s: Annotated[
        float, Option("CAM value above which a position is class-specific (τ_s)", "augmentation")
    ] = 0.7
    tau_g: Annotated[
        float, Option("CAM value below which a position is class-generic (τ_g)", "augmentation")
    ] = 0.1
    tail_draw: Annotated[
        Literal["samples", "classes"],
        Option("how tail samples are drawn: uniformly over samples, or over tail classes", "augmentation"),
    ] = "classes"
    keep: Annotated[
        Literal["last", "best"],
        Option("head to keep: of the last SGD step, or of the best accuracy on --select-on", "choosing"),
    ] = "last"
    select_on: Annotated[
        Literal["val", "test"],
        Option(
            "split that heads and configurations are chosen on; test flatters, and every number says so",
            "choosing",
        ),
    ] = "val"
    rank_by: Annotated[
        Literal["balanced", "overall"],
        Option(
            "accuracy that --keep best and a sweep choose by: mean over classes, or share of images",
            "choosing",
        ),
    ] = "balanced"
    eval_every: Annotated[int, Option("SGD steps between accuracies on --select-on", "choosing", least=1)] = (
        100
    )
    shot_rule: ShotRule = "decoupling"
    device: Device = "auto"
    residency: Annotated[
        Literal["auto", "device", "host", "stream"],
        Option(
            "where feature maps are kept: on the device, in the host's memory, or streamed from the store; "
            "changes no result",
            "machine",
        ),
    ] = "auto"
    memory: Annotated[
        float | None,
        Option("host memory for feature maps, in GiB", "machine", "half of what is free", above=0),
    ] = None
    window: Annotated[
        int, Option("SGD steps whose batches are prepared at once; changes no result", "machine", least=1)
    ] = 64
    prefetch: Annotated[
        int, Option("windows of batches prepared ahead; changes no result", "machine", least=0)
    ] = 2
    ckpt: Annotated[str | None, Option("Phase I's checkpoint, if it moved since extraction", "files")] = None
    cache: Annotated[
        str | None, Option("folder that keeps what is read of a store in a bucket", "files", "none")
    ] = None
    cache_gib: Annotated[float, Option("largest size of the --cache folder, in GiB", "files", above=0)] = 20
    tensorboard: Annotated[
        bool, Option("also write metrics as TensorBoard event files (pip install tensorboard)", "output")
    ] = False
    resume: Annotated[bool, Option("go on with what was interrupted in --out", "files")] = False
    overwrite: Annotated[bool, Option("replace what an earlier command left in --out", "files")] = False

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
        check_bounds(self)
        check_shot_rule(self.shot_rule)
        for name in ("tau_s", "tau_g"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"{flag(name)} {getattr(self, name):g}: must lie between 0 and 1")
        if not -MOST < self.tau < MOST:
            raise UserError(f"--tau {self.tau:g}: must be a number between -2^32 and 2^32")
        if not 0 <= self.beta < 1:
            raise UserError(f"--beta {self.beta:g}: must be at least 0, and below 1")
        if not 0 <= self.gamma_min <= self.gamma_max <= 1:
            found = f"--gamma-min {self.gamma_min:g}, --gamma-max {self.gamma_max:g}"
            raise UserError(f"{found}: must be shares from 0 to 1, the first no larger than the second")
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
                    f"--augmented-per-sample {self.augmented_per_sample}: a batch of {BATCH_SIZE} has no "
                    f"room for a tail sample with so many; lower it, or name a --batch-size of {unit} or more"
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
