"""Options of a sweep, and the configurations that they make."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from analysis.options import PLACES, WAYS
from finetune.config import FinetuneConfig
from finetune.sweep.studies import STUDIES, grids_of
from store.errors import UserError
from store.options import Option, check_bounds, flag, own_options

# The same for all heads of a sweep.
FIXED = PLACES | WAYS | {"seed", "select_on", "folds", "fold_seed", "rank_by", "shot_rule"}


def _studies() -> Iterable[str]:
    return STUDIES


@dataclass(frozen=True)
class SweepConfig:
    """Options of `sweep`: those of `finetune`, and what to vary.

    `out`, `resume` and `overwrite` refer to the folder of the sweep.
    """

    base: FinetuneConfig
    grid: Annotated[
        tuple[str, ...],
        Option("values of an option to try, option=value,value,…; several --grid are combined", "sweep"),
    ] = ()
    study: Annotated[
        str | None,
        Option(
            "one of the paper's ablations: a --grid by name, combined with others",
            "sweep",
            "none",
            names=_studies,
        ),
    ] = None
    range: Annotated[
        tuple[str, ...],
        Option(
            "range of an option that --random draws from: option=low:high or option=low:high:log", "sweep"
        ),
    ] = ()
    random: Annotated[
        int | None,
        Option(
            "number of configurations to draw from --grid and --range", "sweep", "all combinations", least=1
        ),
    ] = None
    seeds: Annotated[int, Option("seeds per configuration, counting up from --seed", "sweep", least=1)] = 3
    heads: Annotated[bool, Option("save the weights of every head in heads/ of --out", "output")] = False

    def configurations(self) -> list[FinetuneConfig]:
        """Every configuration with every seed, in a fixed order, without duplicates.

        Raises:
            UserError: an option cannot be varied, or cannot have a value.
        """
        check_bounds(self)
        varied = self.varied()
        if len(varied) < len(self.grids) + len(self.range):
            raise UserError(
                "--grid, --study, --range: an option is given twice; give it once, with all its values"
            )
        if self.range and self.random is None:
            raise UserError("--range: needs --random, the number of configurations to draw")
        if self.random is None:
            chosen = [dict(zip(varied, values, strict=True)) for values in product(*varied.values())]
        else:
            chosen = [self._drawn(varied, i) for i in range(self.random)]
        seeds = range(self.base.seed, self.base.seed + self.seeds)
        found = [replace(self.base, **values, seed=seed) for values in chosen for seed in seeds]
        return list(dict.fromkeys(found))

    def varied(self) -> dict[str, Any]:
        """A list of values or a range for each varied option."""
        return {**dict(map(parse_grid, self.grids)), **dict(map(parse_range, self.range))}

    @property
    def grids(self) -> tuple[str, ...]:
        """Every --grid, that of --study first."""
        return (*grids_of(self.study), *self.grid)

    def _drawn(self, varied: dict[str, Any], i: int) -> dict[str, Any]:
        from finetune.sampling.philox import CounterRNG  # imports numpy, which --help does without

        uniform = CounterRNG(self.base.seed).uniform("configuration", i, i + 1, max(1, len(varied)))[0]
        return {
            name: values.at(u) if isinstance(values, Range) else values[int(u * len(values))]
            for (name, values), u in zip(varied.items(), uniform, strict=False)
        }


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds.

    Attributes:
        low, high: the bounds.
        log: whether numbers are uniform on a log scale.
        whole: whether they are integers.
    """

    low: float
    high: float
    log: bool
    whole: bool

    def at(self, u: float) -> float | int:
        """Map a uniform number in [0, 1) to the range; rounded to four digits, as one would type it."""
        spread = self.high / self.low if self.log else self.high - self.low
        value = self.low * spread**u if self.log else self.low + spread * u
        rounded = round(value) if self.whole else float(f"{value:.4g}")
        return rounded if self.low <= rounded <= self.high else value


def parse_grid(text: str) -> tuple[str, list[Any]]:
    """Parse `tau_s=0.5,0.7` into the option's name and its values."""
    name, kind = _varied(text, "--grid", "option=value,value")
    values = [_value(name, kind, part) for part in text.partition("=")[2].split(",")]
    return name, list(dict.fromkeys(values))


def parse_range(text: str) -> tuple[str, Range]:
    """Parse `lr=1e-4:1e-1:log` into the option's name and its range."""
    expected = "option=low:high or option=low:high:log"
    name, kind = _varied(text, "--range", expected)
    number = next((k for k in (int, float) if k in (kind, *get_args(kind))), None)
    low, colon, rest = text.partition("=")[2].partition(":")
    high, *scale = rest.split(":")
    if number is None or not colon or scale not in ([], ["log"]):
        raise UserError(f"--range {text}: expected {expected}, for a numeric option")
    bounds = [float(_value(name, number, bound)) for bound in (low, high)]
    found = Range(*bounds, log=bool(scale), whole=number is int)
    if not found.low < found.high or (found.log and found.low <= 0):
        raise UserError(f"--range {text}: low must be below high, and above 0 for log")
    return name, found


def name_of(text: str) -> str:
    """The option's name in `tau-s=0.5,0.7`: tau_s."""
    return text.partition("=")[0].strip().removeprefix("--").replace("-", "_")


def _varied(text: str, given: str, expected: str) -> tuple[str, Any]:
    """Name and type of an option that is varied; UserError unless it can be."""
    _, equals, values = text.partition("=")
    name = name_of(text)
    known = own_options(FinetuneConfig)
    if not equals or not values:
        raise UserError(f"{given} {text}: expected {expected}")
    if name in FIXED:
        advice = "use --seeds" if name == "seed" else f"give {flag(name)} to the whole sweep"
        raise UserError(f"{given} {text}: {name} cannot be varied within a sweep; {advice}")
    if name not in known:
        names = ", ".join(sorted(set(known) - FIXED))
        raise UserError(f"{given} {text}: no option {name}; expected one of {names}")
    kind, option = known[name]
    return name, option.kind_with_names(kind)


def _value(name: str, kind: Any, text: str) -> Any:
    text = text.strip()
    kinds = get_args(kind) if get_origin(kind) is Union or "|" in str(kind) else (kind,)
    if text.lower() == "none" and type(None) in kinds:
        return None
    for one in kinds:
        if (one is str and text) or (get_origin(one) is Literal and text in get_args(one)):
            return text
        if one in (int, float):
            try:
                return one(text)
            except ValueError:
                continue
    choices = [str(c) for one in kinds if get_origin(one) is Literal for c in get_args(one)]
    number = "a whole number" if int in kinds else "a number" if float in kinds else None
    number = "a name" if str in kinds else number
    expected = " or ".join(filter(None, [number, f"one of {', '.join(choices)}" if choices else None]))
    raise UserError(f"{name}={text}: expected {expected}")
