"""Phase II's options."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from store.errors import MOST, UserError, check_at_least

CONFUSING_CLASSES = 3  # paper, sec. 5.1


@dataclass(frozen=True)
class FinetuneConfig:
    """Options of `finetune`; the defaults are the paper's (secs. 4.3, 5.1, 5.4) where it states them.

    The rest (tau_s, tau_g, tail_draw) were chosen on validation images: docs/results.md has the evidence.
    """

    store: Annotated[str, "feature store that `extract` wrote: a path, or s3://bucket/name.zarr"]
    out: Annotated[str, "folder of the run"] = "runs/finetune"
    method: Annotated[Literal["fsa", "no-aug", "plain"], "what a batch is made of"] = "fsa"
    seed: Annotated[int, "of every draw"] = 0
    iterations: Annotated[int, "SGD steps"] = 6400
    batch_size: Annotated[int, "rows of a batch, half of them for the tail"] = 128
    lr: Annotated[float, "learning rate, fixed"] = 0.001
    momentum: Annotated[float, "of SGD"] = 0.9
    augmented_per_sample: Annotated[int, "N_a, augmented samples for each tail sample"] = 3
    confusing_classes: Annotated[
        int | None, "N_f, classes that lend class-generic vectors; 3, or all others where they are fewer"
    ] = None
    head_ratio: Annotated[float, "h_r, share of the training samples in the head classes"] = 0.9
    tau_s: Annotated[float, "positions with a CAM above it are class-specific"] = 0.3
    tau_g: Annotated[float, "positions with a CAM below it are class-generic"] = 0.1
    tail_draw: Annotated[
        Literal["samples", "classes"], "draw tail samples uniformly, or a tail class first"
    ] = "classes"
    eval_every: Annotated[int, "iterations between accuracies on the cached test features"] = 100
    shot_rule: Annotated[Literal["decoupling", "oltr"], "what Many, Medium and Few mean"] = "decoupling"
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    ckpt: Annotated[str | None, "Phase I's checkpoint, if it moved since extraction"] = None
    cache: Annotated[str | None, "folder that keeps what is read of a store in a bucket"] = None
    cache_gib: Annotated[float, "the most that it may hold"] = 20
    overwrite: Annotated[bool, "replace an earlier run in --out"] = False

    @property
    def n_tail(self) -> int:
        """N_t, tail samples in a batch: 2 · N_t · (1 + N_a) rows in all (paper, sec. 4.3)."""
        return self.batch_size // (2 * (1 + self.augmented_per_sample))

    def resolved(self, n_classes: int) -> "FinetuneConfig":
        """The same with values in place of None.

        Raises:
            UserError: a value out of its range.
        """
        self._check(n_classes)
        n_confusing = self.confusing_classes or min(CONFUSING_CLASSES, n_classes - 1)
        return replace(self, confusing_classes=n_confusing)

    def _check(self, n_classes: int) -> None:
        check_at_least(self, iterations=1, batch_size=2, augmented_per_sample=1, confusing_classes=1)
        check_at_least(self, eval_every=1, seed=0, momentum=0)
        for name in ("tau_s", "tau_g"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(
                    f"--{name.replace('_', '-')} {getattr(self, name):g}: must lie between 0 and 1"
                )
        if not 0 < self.lr < MOST:
            raise UserError(f"--lr {self.lr:g}: must be above 0, and below 2^32")
        if self.confusing_classes is not None and self.confusing_classes > n_classes - 1:
            raise UserError(
                f"--confusing-classes {self.confusing_classes}: the store has {n_classes} classes, "
                f"so at most {n_classes - 1} can be confused with one"
            )
        if self.batch_size != 2 * self.n_tail * (1 + self.augmented_per_sample):
            unit = 2 * (1 + self.augmented_per_sample)
            raise UserError(
                f"--batch-size {self.batch_size}: must be a multiple of 2·(1 + augmented per sample) = "
                f"{unit}, so that the tail is half of the batch; "
                f"try {max(unit, self.batch_size // unit * unit)}"
            )


@dataclass(frozen=True)
class AnalyzeConfig:
    """Options of `analyze`. The confusion matrix is the first run's configuration's."""

    runs: tuple[str, ...]
    out: Annotated[str, "folder of the tables and figures"] = "report"
    shot_rule: Annotated[Literal["decoupling", "oltr"], "what Many, Medium and Few mean"] = "decoupling"
