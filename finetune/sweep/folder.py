"""A sweep's folder: what every group of heads leaves, and the results once all have."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analysis.accuracy import SCORES
from analysis.sweeps import rank_configurations
from analysis.tables import name_configurations, without_nan
from finetune.config import FinetuneConfig
from finetune.methods.idle import draws
from finetune.methods.options import EARLIER, effective_options, is_former
from finetune.sampling.head_tail import ratio_in_words
from finetune.store_identity import other_part, store_digests
from finetune.sweep.config import SweepConfig
from finetune.sweep.marker import (
    FORMAT,
    MARKER,
    UNTOLD,
    WHERE,
    differing_option,
    options_of,
    read_marker,
    split_ratio,
    varied_options,
)
from finetune.sweep.repeat import finetune_command, free_folder, places_of
from finetune.sweep.tables import OF_ROW, results_frame, write_tables
from finetune.sweep.taken import (
    DONE,
    HEADS,
    RESULTS,
    another_sweep,
    begun_sweep,
    check_same_content,
    heads_done,
    is_alike,
    is_ranking_bound,
)
from finetune.training.selection import Layer
from store.errors import UserError
from store.notes import note
from store.reader import FeatureStore
from store.storage.atomic import whole_file, write_json
from store.storage.lock import lock_of


@dataclass(frozen=True)
class Sweep:
    """A finished sweep.

    Attributes:
        path: its folder.
        results: a row a head: its options, seed, accuracies in %, seconds.
        ranking: a row a configuration, best first: mean and standard deviation over its seeds.
        select_on: the split that it is ranked by.
        rank_by: the accuracy that it is ranked by.
        head_in_words: what head is.
        command: the `finetune` command that repeats the best configuration with its first seed; None where
            every configuration has a head that diverged.
    """

    path: Path
    results: pd.DataFrame
    ranking: pd.DataFrame
    select_on: str
    rank_by: str
    head_in_words: str
    command: str | None


def head_id(config: FinetuneConfig) -> str:
    """What tells the heads of a sweep apart: a digest of what they depend on, the seed included.

    What earlier programs did, not knowing the option, is left out: their heads keep their names.
    """
    found = effective_options(asdict(config))
    options = {k: v for k, v in found.items() if k not in EARLIER or EARLIER[k] != v}
    options |= {"seed": config.seed if draws(asdict(config)) else 0}
    return sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]


class SweepFolder:
    """The folder on its way.

    Attributes:
        path: where it is.
    """

    def __init__(self, config: SweepConfig, configs: list[FinetuneConfig], store: FeatureStore):
        self.path = Path(config.base.out)
        self._config, self._configs = config, configs
        self._store = store
        content = {"format": FORMAT, "store": store_digests(store), "options": options_of(config)}
        self._content = content | {"one_split": True}
        made = {"n_classes": len(store.class_names), "n_heads": len(configs)}
        self._made = made | places_of(config.base)  # tells no sweeps apart

    def begin(self) -> None:
        """Make the folder ready: empty, or as it was left.

        Raises:
            UserError: it holds something else, or a sweep that this one may not go on with.
        """
        check_same_content(self._config)
        found = read_marker(self.path)
        if self._config.base.resume and (self.path / MARKER).exists():
            self._check_same(found)
            self._check_accuracy_known()
            self._go_on(found)
            return
        if found is not None and not self._config.base.overwrite:
            self._check_not_begun(found)
        # Before the marker: heads of an earlier sweep are never taken for this one's.
        for file in (*(self.path / name for name in RESULTS), *self.path.glob("*/*"), *self.path.glob(".*")):
            if file != lock_of(self.path):
                file.unlink(missing_ok=True)
        write_json(self.path / MARKER, self._content | {"made": self._made})

    def _check_not_begun(self, found: dict[str, Any]) -> None:
        if self._other_part(found) is not None:
            raise another_sweep(self.path)
        wanted = {head_id(config) for config in self._configs}
        raise begun_sweep(self.path, len(wanted & heads_done(self.path)), self.n_heads)

    @property
    def n_heads(self) -> int:
        """How many there are to be."""
        return len(self._configs)

    @property
    def is_begun(self) -> bool:
        """Whether this very sweep is what the folder holds."""
        found = read_marker(self.path)
        return found is not None and self._is_this(found)

    @cached_property
    def head_ratio(self) -> float | None:
        """Of the head and tail that all heads are told of; None where each is told of its own.

        To be asked once the sweep is begun.
        """
        found = read_marker(self.path)
        return self._config.base.head_ratio if found is None else split_ratio(found)

    def _is_this(self, found: dict[str, Any]) -> bool:
        return is_alike(self._config, found) and self._other_part(found) is None

    def _other_part(self, found: dict[str, Any]) -> str | None:
        return other_part(found["store"], self._store, self._content["store"], self.path)

    def _check_same(self, found: dict[str, Any] | None) -> None:
        if found is None:
            raise UserError(f"{self.path / MARKER}: damaged; begin anew with --overwrite")
        if (other := self._other_part(found)) is not None:
            raise UserError(
                f"{self.path}: is a sweep of another store than {self._store.path} ({other} differs); name "
                "that one, or another --out"
            )
        begun, asked = UNTOLD | found["options"], self._content["options"]
        name = differing_option(begun, asked, is_ranking_bound(self._config))
        if name is not None:
            raise UserError(
                f"{self.path}: cannot resume: {name} was {begun.get(name)}, this command asks "
                f"{asked.get(name)}; repeat the interrupted command, or begin anew with --overwrite"
            )

    def _check_accuracy_known(self) -> None:
        base = self._config.base
        score = f"{base.select_on}_{SCORES[base.rank_by]}"
        lacking = [row for row in self.rows() if row["diverged_at"] is None and score not in row]
        if lacking:
            raise UserError(
                f"{self.path}: {len(lacking)} heads of an earlier program have no {base.rank_by} accuracy to "
                "be ranked by; leave --rank-by out, or begin anew with --overwrite"
            )

    def _go_on(self, found: dict[str, Any]) -> None:
        """Bring the marker of an earlier program's sweep, or of one that is ranked anew, up to date."""
        options = dict(self._content["options"])
        former = {one.method for one in self._configs if is_former(one.method, found["options"])}
        if former:
            note(
                f"{self.path}: an earlier program began it, whose {former.pop()} was another (see "
                "docs/methods.md); its heads are made anew, and those of other methods stay"
            )
            for name in RESULTS:  # which tell of the former heads
                (self.path / name).unlink(missing_ok=True)
        if "rank_by" not in found["options"] and options["rank_by"] == UNTOLD["rank_by"]:
            del options["rank_by"]  # so that it goes on so, whatever the default
        one_split = found.get("one_split") or "head_ratio" not in varied_options(options)
        content = self._content | {"options": options, "one_split": one_split}
        if content != found:
            # Former heads stay in the folder: how many files there are tells no more how many are done.
            made = {k: v for k, v in self._made.items() if k != "n_heads" or not former}
            write_json(self.path / MARKER, content | {"made": made})

    def rows(self) -> list[dict[str, Any]]:
        """What is done already, a row a head.

        Raises:
            UserError: a file of it is damaged.
        """
        wanted, rows = {head_id(config) for config in self._configs}, []
        for file in sorted((self.path / DONE).glob("*.json")):
            try:
                found = json.loads(file.read_text())
                if not all(row.keys() >= OF_ROW for row in found):
                    raise ValueError("a row lacks a column")
                rows += [row for row in found if row["head"] in wanted]
            except (ValueError, TypeError, AttributeError) as error:
                raise UserError(f"{file}: damaged ({error}); remove it and go on with --resume") from error
        return rows

    def keep(self, rows: list[dict[str, Any]], layers: list[Layer | None]) -> None:
        """Write what a group of heads came to; rows last, for they say that it is done."""
        if self._config.heads:
            for row, layer in zip(rows, layers, strict=True):
                if layer is not None:
                    with whole_file(self.path / HEADS / f"{row['head']}.pt") as unfinished:
                        torch.save({"weight": layer[0].cpu(), "bias": layer[1].cpu()}, unfinished)
        write_json(self.path / DONE / f"{rows[0]['head']}.json", without_nan(rows))

    @cached_property
    def _named(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Of each head its id, its configuration's name, and its options."""
        options = [asdict(config) for config in self._configs]
        names = name_configurations([effective_options(one) for one in options])
        ids = [head_id(config) for config in self._configs]
        own = [{k: v for k, v in one.items() if k not in WHERE} for one in options]
        return list(zip(ids, names, own, strict=True))

    def results(self, rows: list[dict[str, Any]]) -> pd.DataFrame:
        """Rows of heads with their options before them, in the order of the configurations."""
        return results_frame(self._named, rows)

    def finish(self) -> Sweep:
        """Write results.csv, results.parquet and ranking.csv.

        Raises:
            UserError: a head is missing, as on a disk that another machine's files reach late.
        """
        results = self.results(self.rows())
        missing = len(self._configs) - len(results)
        if missing:
            raise UserError(f"{self.path / DONE}: {missing} heads are missing; go on with --resume")
        select_on, rank_by = self._config.base.select_on, self._config.base.rank_by
        ranking = rank_configurations(results, select_on, rank_by)
        write_tables(self.path, results, ranking)
        ways = (select_on, rank_by, ratio_in_words(self.head_ratio))
        return Sweep(self.path, results, ranking, *ways, self._command(ranking))

    def _command(self, ranking: pd.DataFrame) -> str | None:
        best = ranking.iloc[0]
        if best["diverged"]:
            return None
        place = next(i for i, (_, name, _) in enumerate(self._named) if name == best["configuration"])
        return finetune_command(self._configs[place], free_folder(self.path, "best"), self._made["n_classes"])
