"""All entries on all stores: their heads, round by round, and the tables at the end."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.progress import Progress

from analysis.accuracy import MEASURES, SCORES
from analysis.csv_files import write_csv
from finetune.config import FinetuneConfig
from finetune.contest.ahead import heads_ahead, in_words, seconds_ahead
from finetune.contest.average import Average, greedy_average
from finetune.contest.choosing import Choosing
from finetune.contest.config import ContestConfig
from finetune.contest.entries import Entry, chosen_entries
from finetune.contest.folder import KeptHeads
from finetune.contest.rounds import going_on, n_trained
from finetune.contest.runner import Runner
from finetune.contest.standings import Finalist, number, standings
from finetune.contest.taken import AVERAGE, BEST, run_folders
from finetune.cross_validation.options import CV
from finetune.sampling.head_tail import ratio_in_words
from finetune.sweep.batch import train_batch
from finetune.sweep.folder import head_id
from finetune.sweep.processes import Processes
from finetune.sweep.sweep import shared_out, show_status
from finetune.training.inputs import check_batches
from finetune.training.trainer import LoadedStore
from store.errors import UserError
from store.notes import note, notes_kept_back
from store.storage.atomic import whole_file

NOT_TOLD = ("head", "right", "averageable")  # of a head's row, in heads.csv


@dataclass(frozen=True)
class Contest:
    """A finished contest.

    Attributes:
        path: its folder.
        table: one row per entry, best first, and perhaps one of an average of heads; see `standings`.
        heads: one row per head that was trained or computed.
        best: folders of the winner's runs, one for each store.
        average: folders of the average's runs; none unless it is better on val than every entry.
        n_images: images of each store that were chosen on.
        head_in_words: what "head" means.
    """

    path: Path
    table: pd.DataFrame
    heads: pd.DataFrame
    best: list[Path]
    average: list[Path]
    n_images: list[int]
    head_in_words: str


class Field:
    """All entries, on all stores.

    Attributes:
        loaded: the stores.
        average: of some entries' heads, once the contest is finished; None if there is none.
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
        self.average: Average | None = None
        self._runners = [
            runner
            for name, entry in chosen_entries(config.methods).items()
            if (runner := self._entered(name, entry))
        ]
        if not self._runners:
            raise UserError("contest: no method can take part on these stores; the notes above say why")

    def _entered(self, name: str, entry: Entry) -> Runner | None:
        """The entry, if batches can be drawn for it on every store; None, after a note, if not."""
        try:
            runner = Runner(name, entry, self._config, [len(one.store.class_names) for one in self.loaded])
            for i, one in enumerate(self.loaded):
                for head in runner.heads(i, self._config.seed).values():
                    check_batches(head, one.store, one.common.class_counts)
                    if self._chosen_on[i].folds is not None:
                        self._chosen_on[i].folds.check_classes(head)
        except UserError as error:
            note(f"{name} does not take part: {error}")
            return None
        return runner

    def run(self, group: Processes, progress: Progress, show: Callable[[pd.DataFrame], None] | None) -> None:
        """Train what is not done yet, round by round, each process its share; they meet after each."""
        path = Path(self._config.out)
        self._kept = [
            KeptHeads(path, i, *of, self._config.head_ratio)
            for i, of in enumerate(zip(self.loaded, self._chosen_on, strict=True))
        ]
        n_heads = sum(n_trained(len(one.left), one.n_seeds) for one in self._runners) * len(self.loaded)
        group.meet()  # before any makes a head, so that all forecast from the same ones
        self._forecast(n_heads, group, progress)
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
                        partial(show_status, progress, task),
                    )
                group.meet()
                for kept in self._kept if group.world > 1 else []:
                    kept.read()
                for runner in self._runners:
                    scores = {name: self._scores(runner, name, round_ + 1) for name in runner.left}
                    runner.left = going_on(runner.left, scores)
                if group.rank == 0:
                    self._forget_layers(round_ + 1)
                with notes_kept_back(group.rank > 0):
                    self._leave_diverged()
                if show is not None:
                    show(self._standings([one.finalist(round_ + 1) for one in self._runners]))
        finally:
            progress.remove_task(task)

    def _forecast(self, n_heads: int, group: Processes, progress: Progress) -> None:
        """Note how many heads there are to make, and about how long they take; each process measures."""
        rounds = heads_ahead(self._runners, self._kept, self._config.seeds, self._scores)
        if not any(map(any, rounds)):
            return
        n_folds = self._config.folds if self._config.select_on == CV else 0
        task = progress.add_task("measuring", total=1)
        seconds = seconds_ahead(rounds, self.loaded, n_folds, group)
        progress.remove_task(task)
        with notes_kept_back(group.rank > 0):
            note(in_words(rounds, n_heads, len(self._runners), seconds))

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
                heads = runner.heads(store, self._config.seed + round_)
                wanted |= {head_id(heads[name]): heads[name] for name in runner.left}
        batches = shared_out(list(wanted.values()), group.world) if wanted else []
        for batch in batches[group.rank :: group.world]:
            if left := [one for one in batch if head_id(one) not in kept]:
                train_batch(left, self.loaded[store], self._chosen_on[store].folds, kept, status)
            advance(len(batch))

    def _scores(self, runner: Runner, name: str, at: int) -> list[float]:
        """Accuracies that choose, of a configuration's heads up to a round; NaN for one that diverged."""
        score = f"{self._config.select_on}_{SCORES[self._config.rank_by]}"
        return [
            number(kept.row(head), score)
            for kept, heads in zip(self._kept, runner.ids(name, at), strict=True)
            for head in heads
        ]

    def _forget_layers(self, at: int) -> None:
        """Remove layers of heads that are no longer in the contest after some rounds."""
        for i, kept in enumerate(self._kept):
            every = {
                head_id(one)
                for runner in self._runners
                for seed in runner.seeds(at)
                for one in runner.heads(i, seed).values()
            }
            left = {head for one in self._runners for name in one.left for head in one.ids(name, at)[i]}
            kept.layers.forget(every - left)

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

    def _standings(self, finalists: list[Finalist]) -> pd.DataFrame:
        of_config = self._config.select_on, self._config.rank_by
        return standings(finalists, self._kept, *of_config, self._measures)

    def finish(self, progress: Progress) -> Contest:
        """Average the best few heads, and write the tables."""
        path, finalists = Path(self._config.out), [one.finalist() for one in self._runners]
        table, helps = self._standings(finalists), False
        self.average = self._averaged(finalists, table, progress)
        if self.average is not None:
            table = self._standings([*finalists, self.average.finalist])
            helps = table["entry"].iloc[0] == self.average.finalist.entry
        heads = pd.DataFrame(self._every_head())
        for name, frame in (("standings.csv", table), ("heads.csv", heads)):
            with whole_file(path / name) as unfinished:
                write_csv(frame, unfinished)
        best, average = (run_folders(path, name, len(self.loaded)) for name in (BEST, AVERAGE))
        n_images = [len(one.label) for one in self._chosen_on]
        head_in_words = ratio_in_words(self._config.head_ratio)
        return Contest(path, table, heads, best, average if helps else [], n_images, head_in_words)

    def _averaged(self, finalists: list[Finalist], table: pd.DataFrame, progress: Progress) -> Average | None:
        """The average of some finalists' heads; none with folds, on each of which the heads are others."""
        if self._config.select_on == CV:
            return None
        self._complete_layers(progress)
        by_entry = {one.entry: one for one in finalists}
        best_first = [by_entry[entry] for entry in table["entry"]]
        return greedy_average(best_first, self.loaded, self._kept, self._config.rank_by)

    def _complete_layers(self, progress: Progress) -> None:
        """Train once more the finalists' heads whose layers are gone."""
        for i, (loaded, kept) in enumerate(zip(self.loaded, self._kept, strict=True)):
            chosen = [one.heads(i, seed)[one.left[0]] for one in self._runners for seed in one.seeds()]
            lacking = [one for one in chosen if kept.lacks_layer(head_id(one))]
            if not lacking:
                continue
            store, n = self._config.store[i], len(lacking)
            note(f"{store}: weights of {n} heads are not kept; they are made again, to average")
            task = progress.add_task("made again", total=n, status="")
            try:
                for batch in shared_out(lacking, 1):
                    train_batch(batch, loaded, None, kept, partial(show_status, progress, task))
                    progress.advance(task, len(batch))
            finally:
                progress.remove_task(task)

    def _every_head(self) -> Iterator[dict[str, Any]]:
        for runner in self._runners:
            for i, kept in enumerate(self._kept):
                for seed in runner.seeds():
                    for name, one in runner.heads(i, seed).items():
                        if (head := head_id(one)) in kept:
                            row = {k: v for k, v in kept.row(head).items() if k not in NOT_TOLD}
                            where = {
                                "entry": runner.name,
                                "configuration": name,
                                "store": self._config.store[i],
                            }
                            yield where | {"seed": seed} | row

    def winner(self, table: pd.DataFrame) -> str:
        """The best entry of a table, perhaps behind an average."""
        names = {one.name for one in self._runners}
        return next(entry for entry in table["entry"] if entry in names)

    def chosen_config(self, entry: str, store: int) -> FinetuneConfig:
        """The configuration that an entry ends with, with its first seed, on a store."""
        return next(one for one in self._runners if one.name == entry).chosen_config(store)
