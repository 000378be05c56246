"""An entry on its way through a contest: its configurations, their heads, and what it ends with."""

from dataclasses import asdict

from finetune.config import FinetuneConfig
from finetune.contest.config import ContestConfig, in_words
from finetune.contest.entries import Entry
from finetune.contest.standings import Finalist
from finetune.methods.idle import draws
from finetune.sweep.folder import head_id


class Runner:
    """An entry in the contest.

    Attributes:
        name: of the entry.
        left: its configurations, in words, that are still in the contest.
        n_seeds: seeds that its heads depend on: one without random draws.
    """

    def __init__(self, name: str, entry: Entry, config: ContestConfig, n_classes: list[int]):
        """Enter with all configurations.

        Args:
            name, entry: who takes part.
            config: options of the contest.
            n_classes: K of each store.
        """
        self.name, self._entry, self._config, self._n_classes = name, entry, config, n_classes
        self._made: dict[tuple[int, int], dict[str, FinetuneConfig]] = {}
        first = self.heads(0, config.seed)
        self.left = list(first)
        self.n_seeds = config.seeds if draws(asdict(next(iter(first.values())))) else 1

    def heads(self, store: int, seed: int) -> dict[str, FinetuneConfig]:
        """Resolved configurations on a store with a seed, by their values in words."""
        if (store, seed) not in self._made:
            heads = self._config.heads(self._entry, self._config.store[store], seed)
            self._made[store, seed] = {name: one.resolved(self._n_classes[store]) for name, one in heads}
        return self._made[store, seed]

    def seeds(self, at: int | None = None) -> list[int]:
        """The seeds of its heads in all rounds, or up to a round (exclusive)."""
        n = self.n_seeds if at is None else min(at, self.n_seeds)
        return list(range(self._config.seed, self._config.seed + n))

    def ids(self, name: str, at: int | None = None) -> list[list[str]]:
        """Ids of a configuration's heads, for each store."""
        return [
            [head_id(self.heads(i, seed)[name]) for seed in self.seeds(at)]
            for i in range(len(self._n_classes))
        ]

    def finalist(self, at: int | None = None) -> Finalist:
        """The best configuration so far; `going_on` has put it first."""
        chosen = next(values for values in self._entry.choices() if in_words(values) == self.left[0])
        at_edge = in_words({name: chosen[name] for name in self._entry.at_edge(chosen)})
        return Finalist(self.name, self.left[0], self.ids(self.left[0], at), at_edge)

    def chosen_config(self, store: int) -> FinetuneConfig:
        """What it ends with, with the first seed, on a store."""
        return self.heads(store, self._config.seed)[self.left[0]]
