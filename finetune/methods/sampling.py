"""The sampling of a method: how its batches are drawn, and what is mixed in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from array_api_compat import array_namespace

from finetune.sampling.arrays import Array, on_host
from finetune.sampling.episodes import episodes, prior_of_episodes
from finetune.sampling.plan import Draw, Plan, PlanInputs
from finetune.sampling.rows import ROWS, RowSampling

if TYPE_CHECKING:  # the command line imports this for the methods' names and must not wait for torch
    from finetune.mixing.mix import Mix


@dataclass(frozen=True)
class Sampling:
    """How the batches of a method are sampled.

    Attributes:
        draw: draws the plan of iterations `start` to `stop` (exclusive); see `drawn_anywhere`.
        prior: (K,) class distribution of its batches: shares of their labels.
        in_halves: whether a batch is half tail, half head.
        of_tail_samples: whether it is N_t tail samples, N_a more for each, and as many head ones (sec. 4.3).
        needs_confusing: whether it needs the confusing classes of each class whose rows are mixed.
        needs_positions: whether it needs the class-specific and class-generic positions of every map.
        needs_class_noise: whether it needs the nearest classes of each row, and noise of each class.
        reads_maps: whether its mix reads feature maps.
        of_fsa: whether its new samples are those of FSA.
        two_labels: whether its new samples have two labels.
        mixes: whether rows are replaced by new samples as --mix-share and --mix-classes say.
        options: options that the plan depends on, except the seed.
        facts: what config.json records of the mix, from the plan's inputs, the sum of `n_empty` over the run
            and the number of mixed samples; None for nothing.
        name: of `--sampling`, for methods that leave it to the user.
    """

    draw: Draw
    prior: Callable[[PlanInputs], np.ndarray]
    in_halves: bool = False
    of_tail_samples: bool = False
    needs_confusing: bool = False
    needs_positions: bool = False
    needs_class_noise: bool = False
    reads_maps: bool = False
    of_fsa: bool = False
    two_labels: bool = False
    mixes: bool = False
    options: tuple[str, ...] = ("batch_size",)
    facts: Callable[[PlanInputs, np.ndarray, int], dict[str, Any]] | None = None
    name: str | None = None

    def depends_on_tail(self, config: Mapping[str, Any]) -> bool:
        """Whether the plan depends on which classes are the tail, with these resolved options."""
        if not self.mixes or self.in_halves or config["mix_classes"] == "tail":
            return "head_ratio" in self.options
        return self.needs_confusing and config["donors"] == "head"


@dataclass(frozen=True)
class Batches:
    """A draw: the rows of a sampling alone, or with new samples in place of some.

    Attributes:
        rows: the rows.
        mix: makes new samples from iterations `start` to `stop`, rows (T, A), which of them to replace,
            (T, A) bool or None for all, and all rows of their batches, (T, B); None to mix nothing.
    """

    rows: RowSampling
    mix: "Callable[[PlanInputs, int, int, Array, Array | None, Array], Mix] | None" = None
    anywhere: ClassVar[bool] = True

    def __call__(self, inputs: PlanInputs, start: int, stop: int) -> Plan:
        """The plan of iterations `start` to `stop` (exclusive)."""
        if self.mix is None:
            return Plan(self.rows.draw(inputs, start, stop, 0))
        n_places = inputs.mixing.n_places(inputs.batch_size)
        row = self.rows.draw(inputs, start, stop, n_places)
        last = row[:, -n_places:]
        if inputs.mixing.classes == "all":
            return Plan(row, self.mix(inputs, start, stop, last, None, row))
        share = inputs.replaced[inputs.label[last]]
        if inputs.mixing.classes == "tail":
            is_mixed = share > 0
        else:
            is_mixed = inputs.draws.uniform("filled", start, stop, n_places) < share
        n_each = on_host(array_namespace(is_mixed).sum(is_mixed, axis=1))
        return Plan(row, self.mix(inputs, start, stop, last, is_mixed, row), n_each)


def _of_rows(name: str) -> Sampling:
    rows = ROWS[name]
    return Sampling(Batches(rows), rows.prior, rows.in_halves, options=rows.options, name=name)


UNIFORM, BALANCED, HALVES = (_of_rows(name) for name in ("uniform", "balanced", "halves"))
ANY = (UNIFORM, BALANCED, HALVES)
OF_TAIL_SAMPLES = replace(HALVES, of_tail_samples=True)
EPISODES = Sampling(episodes, prior_of_episodes, options=("batch_size", "head_ratio"))
OF_PLACES = ("mix_share", "mix_classes", "head_ratio")  # options that decide which rows are mixed


def mixed(
    mix: Callable[..., "Mix"],
    options: tuple[str, ...],
    prior: Callable[[RowSampling], Callable[[PlanInputs], np.ndarray]] = lambda rows: rows.prior,
    **changes: Any,
) -> tuple[Sampling, ...]:
    """The same samplings with a mix.

    Args:
        mix: see `Batches`.
        options: options that it depends on.
        prior: makes the prior of the batches from their rows; that of the rows, if labels are theirs alone.
        changes: other fields.
    """
    found = []
    for sampling in ANY:
        every = tuple(dict.fromkeys((*sampling.options, *OF_PLACES, *options)))
        draw, of_batches = Batches(ROWS[sampling.name], mix), prior(ROWS[sampling.name])
        found.append(replace(sampling, draw=draw, prior=of_batches, options=every, mixes=True, **changes))
    return tuple(found)
