"""Who takes part: each entry is a method with the values that its options may have.

The grids are those that won or came close on the stores of docs/methods.md and docs/results.md. A new method
takes part with a line in ENTRIES.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from store.errors import UserError
from store.names import shown

DECAYS = (0.0005, 0.005, 0.01)
RATES = (0.001, 0.01)
TAUS = (1.0, 1.25, 1.5, 2.0)
POST_HOC_TAUS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5)


@dataclass(frozen=True)
class Entry:
    """A method in the contest.

    Attributes:
        method: its name in the registry of methods.
        grid: values of options of `finetune`; every combination is tried.
        fixed: options that all its configurations have.
    """

    method: str
    grid: dict[str, tuple[Any, ...]]
    fixed: dict[str, Any] = field(default_factory=dict)

    def choices(self) -> Iterator[dict[str, Any]]:
        """Every combination of values, as options."""
        for values in product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))

    def at_edge(self, chosen: dict[str, Any]) -> list[str]:
        """Options of which a choice has the smallest or largest of three numbers or more.

        A better value may lie beyond; not beyond 0, which switches something off.
        """
        return [
            name
            for name, values in self.grid.items()
            if len(values) > 2
            and all(isinstance(value, int | float) for value in values)
            and chosen[name] in (min(values), max(values))
            and chosen[name] != 0
        ]


CORRECTED = {"sampling": "uniform", "loss": "balanced-softmax"}
FC = {"lr": RATES, "weight_decay": DECAYS}
ENTRIES = {
    "fsa": Entry("fsa", {"lr": (0.0003, *RATES), "weight_decay": (0.0, 0.005, 0.01)}),
    "fsa+balanced-softmax": Entry("fsa+balanced-softmax", {"tau": TAUS[:3]} | FC),
    "no-aug": Entry("no-aug", {"lr": (0.0003, *RATES), "weight_decay": (0.0, 0.005, 0.01)}),
    "plain": Entry("plain", {"lr": (0.0003, 0.001)}),
    "crt": Entry("crt", {"lr": (0.001, 0.02, 0.1), "weight_decay": DECAYS}),
    "lws": Entry("lws", {"lr": (0.01, 0.1, 0.3)}),
    "marc": Entry("marc", {"lr": (0.01, 0.05, 0.2)}),
    "disalign": Entry("disalign", {"lr": (0.01, 0.1, 0.5)}),
    "oltr": Entry("oltr", {"lr": (0.01, 0.1), "weight_decay": (0.0005, 0.005)}),
    "fslwf": Entry("fslwf", {"lr": (0.001, 0.01, 0.1)}),
    "mislas": Entry("mislas", {"fc_lr_share": (0.1, 0.5), "smooth_head": (0.2, 0.4)}),
    "h2t": Entry("h2t", {"rho": (0.1, 0.25, 0.4), "lr": (0.001, 0.02), "weight_decay": (0.0005, 0.01)}),
    "h2t+balanced-softmax": Entry("h2t", {"tau": TAUS[:3]} | FC, CORRECTED | {"rho": 0.1}),
    "mixup": Entry("mixup", {"lr": (0.001, 0.02), "weight_decay": DECAYS}),
    "mixup+balanced-softmax": Entry("mixup", {"tau": TAUS[:3]} | FC, CORRECTED),
    "remix": Entry("remix", {"lr": (0.001, 0.02), "weight_decay": DECAYS}),
    "tailcalib": Entry("tailcalib", {"lr": (0.001, 0.02), "weight_decay": DECAYS}),
    "tau-norm": Entry("tau-norm", {"tau": POST_HOC_TAUS}),
    "ncm": Entry("ncm", {"distance": ("euclidean", "cosine")}),
    "lda": Entry("lda", {"shrinkage": (0.01, 0.1, 0.3, 0.6)}),
    "logit-adjustment": Entry("logit-adjustment", {"tau": POST_HOC_TAUS}),
    "multiplicative-adjustment": Entry("multiplicative-adjustment", {"tau": (0.1, 0.2, 0.3, 0.5, 1.0)}),
    "balanced-softmax": Entry("balanced-softmax", {"tau": TAUS} | FC),
    "class-balanced": Entry("class-balanced", {"beta": (0.999, 0.9999)} | FC),
    "isda": Entry("isda", {"isda_strength": (0.25, 1.0), "lr": (0.001, 0.02), "weight_decay": DECAYS}),
    "focal": Entry("focal", {"lr": (0.0003, 0.001)}),
    "weight-balancing": Entry("weight-balancing", {"lr": RATES, "weight_decay": (0.005, 0.05, 0.1)}),
}


def chosen_entries(names: str | None) -> dict[str, Entry]:
    """The entries of a list of names, separated by commas; all for None.

    Raises:
        UserError: there is no such entry, or none is named.
    """
    if names is None:
        return dict(ENTRIES)
    asked = [name.strip() for name in names.split(",") if name.strip()]
    unknown = next((name for name in asked if name not in ENTRIES), None)
    if unknown is not None or not asked:
        said = f"no entry {shown(unknown)}" if asked else "names no entry"
        raise UserError(f"--methods {shown(names)}: {said}; expected some of {', '.join(ENTRIES)}")
    return {name: ENTRIES[name] for name in dict.fromkeys(asked)}
