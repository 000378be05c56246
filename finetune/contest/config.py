"""Options of `contest`."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from analysis.options import HEAD_RATIO
from extract.options import Device, ShotRule, check_shot_rule
from finetune.config import FinetuneConfig
from finetune.contest.entries import Entry, chosen_entries
from finetune.cross_validation.options import CV, Folds, FoldSeed
from finetune.mixing.options import HeadRatio
from store.errors import UserError
from store.notes import note
from store.options import MOST, Option, check_bounds, flag


@dataclass(frozen=True)
class ContestConfig:
    """Options of `contest`. All heads share seeds, iterations and what they are ranked by."""

    store: Annotated[
        tuple[str, ...],
        Option("feature store that `extract` wrote; results of several --store are averaged", "files"),
    ]
    out: Annotated[str, Option("folder for the results", "files")] = "runs/contest"
    methods: Annotated[
        str | None, Option("who takes part, separated by commas: fsa,crt,balanced-softmax", "method", "all")
    ] = None
    seeds: Annotated[
        int, Option("seeds of the best configurations, counting up from --seed", "schedule", least=1)
    ] = 3
    seed: Annotated[int, Option("first random seed", "schedule", least=0)] = 0
    iterations: Annotated[int, Option("SGD steps of every head that is trained", "schedule", least=1)] = 6400
    rank_by: Annotated[
        Literal["balanced", "overall"],
        Option("accuracy to choose and rank by: mean over classes, or share of images", "choosing"),
    ] = "balanced"
    select_on: Annotated[
        Literal["val", "cv"],
        Option(
            "images to choose and rank on: val; or cv, training images in --folds (stores of --classifier "
            "fit)",
            "choosing",
        ),
    ] = "val"
    folds: Folds = 5
    fold_seed: FoldSeed = 0
    head_ratio: HeadRatio = HEAD_RATIO
    shot_rule: ShotRule = "decoupling"
    device: Device = "auto"
    ckpt: Annotated[str | None, Option("Phase I's checkpoint, if it has moved since extraction", "files")] = (
        None
    )
    resume: Annotated[bool, Option("resume what was interrupted in --out", "files")] = False
    overwrite: Annotated[bool, Option("replace what an earlier command wrote to --out", "files")] = False

    def check(self) -> None:
        """Raise UserError for what is wrong without a look at the stores."""
        check_bounds(self)
        check_shot_rule(self.shot_rule)
        chosen_entries(self.methods)
        if not 0 < self.head_ratio < 1:
            raise UserError(f"--head-ratio {self.head_ratio:g}: must lie between 0 and 1")
        if self.seed + self.seeds > MOST:
            raise UserError(f"--seed {self.seed}, --seeds {self.seeds}: seeds must be below 2^32; lower one")
        if not self.store:
            raise UserError("contest: no store to try the methods on; give --store, once or several times")
        twice = next((one for one in self.store if self.store.count(one) > 1), None)
        if twice is not None:
            raise UserError(f"--store {twice}: is given twice; each store counts once, so name it once")
        if self.ckpt is not None and len(self.store) > 1:
            raise UserError(
                f"--ckpt {self.ckpt}: is of one store, and {len(self.store)} are given; put each checkpoint "
                "where its store expects it"
            )

    def without_idle_folds(self) -> "ContestConfig":
        """The same with the default folds where these change nothing, after a note."""
        if self.select_on == CV:
            return self
        for name in ("folds", "fold_seed"):
            if getattr(self, name) != getattr(ContestConfig, name):
                note(f"{flag(name)} changes nothing: it is for --select-on cv")
        return replace(self, folds=ContestConfig.folds, fold_seed=ContestConfig.fold_seed)

    def heads(self, entry: Entry, store: str, seed: int) -> list[tuple[str, FinetuneConfig]]:
        """Every configuration of an entry on a store with a seed, each after its values in words."""
        base = FinetuneConfig(
            store,
            out=None,
            method=entry.method,
            seed=seed,
            iterations=self.iterations,
            eval_every=self.iterations,
            select_on=self.select_on,
            folds=self.folds,
            fold_seed=self.fold_seed,
            rank_by=self.rank_by,
            head_ratio=self.head_ratio,
            shot_rule=self.shot_rule,
            device=self.device,
            ckpt=self.ckpt,
        )
        return [(in_words(chosen), replace(base, **entry.fixed, **chosen)) for chosen in entry.choices()]


def in_words(chosen: dict[str, Any]) -> str:
    """The values that a configuration chose: lr=0.01, tau=1."""
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in chosen.items()
    )
