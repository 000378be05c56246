"""What a contest has before it: heads that are not done yet, and about how long they take here."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from finetune.config import FinetuneConfig
from finetune.contest.folder import KeptHeads
from finetune.contest.rounds import going_on, n_kept
from finetune.contest.runner import Runner
from finetune.forecast.units import duration
from finetune.methods.registry import METHODS
from finetune.sweep.batch import Batch
from finetune.sweep.folder import head_id
from finetune.sweep.processes import Processes
from finetune.sweep.sweep import shared_out
from finetune.training.trainer import LoadedStore, Trainer

SHARE = 0.015  # of a head's iterations: so many are taken to measure them
N_WINDOWS = 4  # that these are on a CPU; smaller windows take longer a step, by a third if they are of 8
FEW_SECONDS = 10  # less than this is told as a few
Rounds = list[list[list[FinetuneConfig]]]  # heads of each round on each store


@dataclass(frozen=True)
class Pace:
    """How long heads take, measured.

    Attributes:
        starting: seconds before the first step, and until it is recorded on a GPU.
        stepping: seconds of all steps.
    """

    starting: float
    stepping: float


def heads_ahead(
    runners: Sequence[Runner],
    kept: Sequence[KeptHeads],
    n_rounds: int,
    scores: Callable[[Runner, str, int], list[float]],
) -> Rounds:
    """Heads that are still to be made: of each round, those on each store.

    Where a round is not done, which configurations will go on is not known, and the first ones stand for
    them. If some diverge in it, fewer heads will be made.

    Args:
        runners: the entries, with all configurations.
        kept: the heads that are done, of each store.
        n_rounds: rounds of the contest.
        scores: of an entry's configuration up to a round, as in `going_on`.
    """
    rounds: Rounds = [[[] for _ in kept] for _ in range(n_rounds)]
    for one in runners:
        left = one.left
        for round_, seed in enumerate(one.seeds()):
            is_done = True
            for i, of_store in enumerate(kept):
                heads = [one.heads(i, seed)[name] for name in left]
                lacking = [head for head in heads if head_id(head) not in of_store]
                rounds[round_][i] += lacking
                is_done = is_done and not lacking
            if is_done:
                left = going_on(left, {name: scores(one, name, round_ + 1) for name in left})
            else:
                left = left[: n_kept(len(left))]
    return rounds


def in_words(rounds: Rounds, n_total: int, n_entries: int, seconds: float) -> str:
    """A line for the user: 24 entries, 294 heads in 3 rounds, about 2 min on this machine.

    Args:
        rounds: heads that are still to be made.
        n_total: heads of the whole contest.
        n_entries: who takes part.
        seconds: that the heads will take.
    """
    n_heads = sum(len(heads) for of_round in rounds for heads in of_round)
    n_rounds = sum(map(any, rounds))
    of_all = f" of {n_total:,}" if n_heads < n_total else ""
    heads, left = "head" if n_total == 1 else "heads", " left" if of_all else ""
    entries, in_rounds = ("entry" if n_entries == 1 else "entries"), ("round" if n_rounds == 1 else "rounds")
    about = "a few seconds" if seconds < FEW_SECONDS else f"about {duration(seconds)}"
    what = f"{n_entries} {entries}, {n_heads:,}{of_all} {heads}{left} in {n_rounds} {in_rounds}"
    return f"contest: {what}, {about} on this machine"


def seconds_ahead(rounds: Rounds, loaded: list[LoadedStore], n_folds: int, group: Processes) -> float:
    """Seconds that heads will take, from some of the first and the last round's steps, see SHARE.

    The rounds between lie between by their number of heads; computed heads, which take no steps, count
    nothing. Each process measures its own share, and its seconds are all processes' if shares are alike.

    Args:
        rounds: what `heads_ahead` says.
        loaded: the stores; the first one's heads stand for all.
        n_folds: trainings of a head besides that on all rows.
        group: the processes.
    """
    trained = [[[one for one in heads if _is_trained(one)] for heads in of_round] for of_round in rounds]
    n_heads = [sum(map(len, of_round)) for of_round in trained]
    with_heads = [i for i, n in enumerate(n_heads) if n]
    if not with_heads:
        return 0.0
    measured = {}
    for i in sorted({with_heads[0], with_heads[-1]}):
        store, heads = next((store, heads) for store, heads in enumerate(trained[i]) if heads)
        batches = shared_out(heads, group.world)[group.rank :: group.world]
        paces = [_measured(batch, loaded[store]) for batch in batches]
        scale = n_heads[i] / len(heads)  # the other stores
        starting, stepping = (
            scale * sum(getattr(of, name) for of in paces) for name in ("starting", "stepping")
        )
        measured[n_heads[i]] = starting, stepping
    by_heads = sorted(measured)
    stepping = sum(np.interp([n_heads[i] for i in with_heads], by_heads, [measured[n][1] for n in by_heads]))
    starting = len(with_heads) * min(of[0] for of in measured.values())  # more only once: maps are loaded
    return float((1 + n_folds) * (starting + stepping))


def _is_trained(config: FinetuneConfig) -> bool:
    return METHODS[config.method].compute is None


def _measured(batch: Batch, loaded: LoadedStore) -> Pace:
    """How long heads that share a plan take, from their first steps; nothing is left of these."""
    first = batch[0]
    n_steps = min(first.iterations, max(N_WINDOWS, round(SHARE * first.iterations)))
    window = -(-n_steps // N_WINDOWS)
    if loaded.device.type == "cuda":  # which takes a whole window's steps at once
        window = min(first.window, n_steps)
        n_steps = min(first.iterations, 2 * window)
    few = [replace(one, iterations=n_steps, eval_every=n_steps, window=window) for one in batch]
    times = [time.perf_counter()]
    trainer = Trainer(few, loaded)
    with closing(trainer.run(n_steps)) as windows:
        times += [time.perf_counter() for _ in windows]
    starting, rest = times[1] - times[0], times[-1] - times[1]
    n_rest = trainer.iteration - window
    step = rest / n_rest if n_rest > 0 else starting / trainer.iteration
    return Pace(starting, step * (first.iterations - window))
