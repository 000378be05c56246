"""All entries on all stores: their heads, round by round, and the tables at the end."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.progress import Progress

from analysis.accuracy import MEASURES, SCORES
from analysis.csv_files import write_csv
from finetune.config import FinetuneConfig
from finetune.contest.choosing import Choosing
from finetune.contest.config import ContestConfig, in_words
from finetune.contest.entries import Entry, chosen_entries
from finetune.contest.folder import KeptHeads
from finetune.contest.rounds import going_on, n_trained
from finetune.contest.standings import Finalist, number, standings
from finetune.contest.taken import best_runs
from finetune.methods.idle import draws
from finetune.sampling.head_tail import ratio_in_words
from finetune.sweep.batch import train_batch
from finetune.sweep.folder import head_id
from finetune.sweep.processes import Processes
from finetune.sweep.sweep import shared_out
from finetune.training.inputs import check_batches
from finetune.training.trainer import LoadedStore
from store.errors import UserError
from store.notes import note, notes_kept_back
from store.storage.atomic import whole_file


@dataclass(frozen=True)
class Contest:
    """A finished contest.

    Attributes:
        path: its folder.
        table: one row per entry, best first; see `standings`.
        heads: one row per head that was trained or computed.
        best: folders of the winner's runs, one for each store.
        n_images: images of each store that were chosen on.
        head_in_words: what "head" means.
    """

    path: Path
    table: pd.DataFrame
    heads: pd.DataFrame
    best: list[Path]
    n_images: list[int]
    head_in_words: str


@dataclass
class _Runner:
    """An entry on its way: its configurations, in words, that are still in the contest."""

    name: str
    entry: Entry
    left: list[str]
    n_seeds: int


class Field:
    """All entries, on all stores.

    Attributes:
        loaded: the stores.
    """

    def __init__(
        self,
        config: ContestConfig,
        loaded: list[LoadedStore],
        chosen_on: list[Choosing],
        measures: Sequence[str] = MEASURES,
    ):
        """Enter all that can take part.

        Args:
            config: the options; heads that are done in its folder are not trained again.
            loaded: the stores.
            chosen_on: what is chosen on in each.
            measures: accuracies that are averaged over stores.

        Raises:
            UserError: none can take part.
        """
        self._config, self.loaded, self._chosen_on, self._measures = config, loaded, chosen_on, measures
        self._kept: list[KeptHeads] = []
        self._made: dict[tuple[int, int, int], dict[str, FinetuneConfig]] = {}
        self._runners = [
            runner
            for name, entry in chosen_entries(config.methods).items()
            if (runner := self._entered(name, entry))
        ]
        if not self._runners:
            raise UserError("contest: no method can take part on these stores; the notes above say why")

    def _heads(self, entry: Entry, store: int, seed: int) -> dict[str, FinetuneConfig]:
        """Resolved configurations of an entry, by their values in words."""
        key = (id(entry), store, seed)
        if key not in self._made:
            n_classes, path = len(self.loaded[store].store.class_names), self._config.store[store]
            heads = self._config.heads(entry, path, seed)
            self._made[key] = {name: one.resolved(n_classes) for name, one in heads}
        return self._made[key]

    def _entered(self, name: str, entry: Entry) -> _Runner | None:
        """The entry, if batches can be drawn for it on every store; None, after a note, if not."""
        try:
            for i, one in enumerate(self.loaded):
                heads = self._heads(entry, i, self._config.seed)
                for head in heads.values():
                    check_batches(head, one.store, one.common.class_counts)
                    if self._chosen_on[i].folds is not None:
                        self._chosen_on[i].folds.check_classes(head)
        except UserError as error:
            note(f"{name} does not take part: {error}")
            return None
        n_seeds = self._config.seeds if draws(asdict(next(iter(heads.values())))) else 1
        return _Runner(name, entry, list(heads), n_seeds)

    def _seeds(self, runner: _Runner, at: int | None = None) -> list[int]:
        """The seeds of an entry's heads in all rounds, or up to a round (exclusive)."""
        n = runner.n_seeds if at is None else min(at, runner.n_seeds)
        return list(range(self._config.seed, self._config.seed + n))

    def run(self, group: Processes, progress: Progress, show: Callable[[pd.DataFrame], None] | None) -> None:
        """Train what is not done yet, round by round, each process its share; they meet after each."""
        path = Path(self._config.out)
        self._kept = [
            KeptHeads(path, i, *of, self._config.head_ratio)
            for i, of in enumerate(zip(self.loaded, self._chosen_on, strict=True))
        ]
        n_heads = sum(n_trained(len(one.left), one.n_seeds) for one in self._runners) * len(self.loaded)
        n_heads = -(-n_heads // group.world)  # roughly this one's
        task = progress.add_task("contest", total=n_heads, status="")
        try:
            for round_ in range(self._config.seeds):
                for i in range(len(self.loaded)):
                    self._train(
                        i,
                        round_,
                        group,
                        lambda n: progress.advance(task, n),
                        lambda text: progress.update(task, status=text),
                    )
                group.meet()
                for kept in self._kept if group.world > 1 else []:
                    kept.read()
                for runner in self._runners:
                    scores = {name: self._scores(runner, name, round_ + 1) for name in runner.left}
                    runner.left = going_on(runner.left, scores)
                with notes_kept_back(group.rank > 0):
                    self._leave_diverged()
                if show is not None:
                    show(self._standings(round_ + 1))
        finally:
            progress.remove_task(task)

    def _train(
        self,
        store: int,
        round_: int,
        group: Processes,
        advance: Callable[[int], None],
        status: Callable[[str], None],
    ) -> None:
        kept, wanted = self._kept[store], {}
        for runner in self._runners:
            if round_ < runner.n_seeds:
                heads = self._heads(runner.entry, store, self._config.seed + round_)
                wanted |= {head_id(heads[name]): heads[name] for name in runner.left}
        batches = shared_out(list(wanted.values()), group.world) if wanted else []
        for batch in batches[group.rank :: group.world]:
            if left := [one for one in batch if head_id(one) not in kept]:
                train_batch(left, self.loaded[store], self._chosen_on[store].folds, kept, status)
            advance(len(batch))

    def _ids(self, runner: _Runner, name: str, at: int | None = None) -> list[list[str]]:
        """Ids of a configuration's heads, for each store."""
        return [
            [head_id(self._heads(runner.entry, i, seed)[name]) for seed in self._seeds(runner, at)]
            for i in range(len(self.loaded))
        ]

    def _scores(self, runner: _Runner, name: str, at: int) -> list[float]:
        """Accuracies that choose, of a configuration's heads up to a round; NaN for one that diverged."""
        score = f"{self._config.select_on}_{SCORES[self._config.rank_by]}"
        return [
            number(kept.row(head), score)
            for kept, heads in zip(self._kept, self._ids(runner, name, at), strict=True)
            for head in heads
        ]

    def _leave_diverged(self) -> None:
        for runner in self._runners:
            if not runner.left:
                note(f"{runner.name} leaves the contest: no configuration has finite weights on every store")
        self._runners = [runner for runner in self._runners if runner.left]
        if not self._runners:
            raise UserError(
                "contest: no configuration of any method has finite weights on every store; try more "
                "--methods, or a store in which all classes have training rows"
            )

    def _finalists(self, at: int | None = None) -> list[Finalist]:
        """The best configuration of each entry so far; `going_on` has put it first."""
        found = []
        for one in self._runners:
            chosen = next(values for values in one.entry.choices() if in_words(values) == one.left[0])
            at_edge = in_words({name: chosen[name] for name in one.entry.at_edge(chosen)})
            found.append(Finalist(one.name, one.left[0], self._ids(one, one.left[0], at), at_edge))
        return found

    def _standings(self, at: int | None = None) -> pd.DataFrame:
        of_config = self._config.select_on, self._config.rank_by
        return standings(self._finalists(at), self._kept, *of_config, self._measures)

    def finish(self) -> Contest:
        """Write the tables."""
        path = Path(self._config.out)
        table = self._standings()
        heads = pd.DataFrame(self._every_head())
        for name, frame in (("standings.csv", table), ("heads.csv", heads)):
            with whole_file(path / name) as unfinished:
                write_csv(frame, unfinished)
        n_images = [len(one.label) for one in self._chosen_on]
        best = best_runs(path, len(self.loaded))
        return Contest(path, table, heads, best, n_images, ratio_in_words(self._config.head_ratio))

    def _every_head(self) -> Iterator[dict[str, Any]]:
        for runner in self._runners:
            for i, kept in enumerate(self._kept):
                for seed in self._seeds(runner):
                    for name, one in self._heads(runner.entry, i, seed).items():
                        if (head := head_id(one)) in kept:
                            row = {k: v for k, v in kept.row(head).items() if k not in ("head", "right")}
                            where = {
                                "entry": runner.name,
                                "configuration": name,
                                "store": self._config.store[i],
                            }
                            yield where | {"seed": seed} | row

    def best_config(self, table: pd.DataFrame, store: int) -> FinetuneConfig:
        """The winner's configuration with its first seed, on a store."""
        first = table.iloc[0]
        runner = next(one for one in self._runners if one.name == first["entry"])
        return self._heads(runner.entry, store, self._config.seed)[first["chosen"]]
