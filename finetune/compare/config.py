"""Options of `analyze`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from extract.options import ShotRule
from store.options import Option


@dataclass(frozen=True)
class AnalyzeConfig:
    """Options of `analyze`. The confusion matrix is that of the first run's configuration."""

    runs: tuple[str, ...]
    out: Annotated[str, Option("folder for tables and figures", "files")] = "report"
    shot_rule: ShotRule = "decoupling"
    rank_by: Annotated[
        Literal["balanced", "overall"] | None,
        Option(
            "accuracy to rank sweeps by: mean over classes, or share of images",
            "choosing",
            "the sweeps' own",
        ),
    ] = None
    across_subsets: Annotated[
        bool, Option("average over long-tailed subsets of one source (train --subset-seed)", "choosing")
    ] = False
