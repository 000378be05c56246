"""A sweep's folder: rows of finished heads, and the results once all heads are done."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.accuracy import SCORES
from analysis.sweeps import rank_configurations
from analysis.tables import name_configurations, without_nan
from extract.heads.kinds import Layer, saved_parts
from finetune.config import FinetuneConfig
from finetune.methods.idle import draws
from finetune.methods.options import EARLIER, effective_options, is_former
from finetune.sampling.head_tail import ratio_in_words
from finetune.store_identity import other_part, store_digests
from finetune.sweep.config import SweepConfig
from finetune.sweep.marker import (
    FORMAT,
    MARKER,
    UNRECORDED,
    WHERE,
    differing_option,
    options_of,
    read_marker,
    split_ratio,
    varied_options,
)
from finetune.sweep.repeat import finetune_command, free_folder, places_of
from finetune.sweep.tables import ROW_COLUMNS, results_frame, write_tables
from finetune.sweep.taken import (
    DONE,
    HEADS,
    RESULTS,
    another_sweep,
    check_same_content,
    heads_done,
    is_alike,
    is_ranking_bound,
    unfinished_sweep,
)
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
        results: one row per head: its options, seed, accuracies in %, seconds.
        ranking: one row per configuration, best first: mean and standard deviation over its seeds.
        select_on: split that the ranking is by.
        rank_by: accuracy that the ranking is by.
        head_in_words: what "head" means.
        command: `finetune` command that repeats the best configuration with its first seed; None if every
            configuration has a head that diverged.
    """

    path: Path
    results: pd.DataFrame
    ranking: pd.DataFrame
    select_on: str
    rank_by: str
    head_in_words: str
    command: str | None


def head_id(config: FinetuneConfig) -> str:
    """Digest of the options that a head depends on, its seed included; identifies it within a sweep.

    Options with the value of EARLIER are left out, so that heads of older versions keep their ids.
    """
    found = effective_options(asdict(config))
    options = {k: v for k, v in found.items() if k not in EARLIER or EARLIER[k] != v}
    options |= {"seed": config.seed if draws(asdict(config)) else 0}
    return sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]


class SweepFolder:
    """The folder of a sweep in progress.

    Attributes:
        path: the folder.
    """

    def __init__(self, config: SweepConfig, configs: list[FinetuneConfig], store: FeatureStore):
        self.path = Path(config.base.out)
        self._config, self._configs = config, configs
        self._store = store
        content = {"format": FORMAT, "store": store_digests(store), "options": options_of(config)}
        self._content = content | {"one_split": True}
        made = {"n_classes": len(store.class_names), "n_heads": len(configs)}
        self._made = made | places_of(config.base)  # not part of the sweep's identity

    def prepare(self) -> None:
        """Start or resume: leave the folder with sweep.json and no heads of other sweeps.

        Raises:
            UserError: it holds something else, or a sweep that cannot be resumed with these options.
        """
        check_same_content(self._config)
        found = read_marker(self.path)
        if self._config.base.resume and (self.path / MARKER).exists():
            self._check_same(found)
            self._check_accuracy_known()
            self._resume(found)
            return
        if found is not None and not self._config.base.overwrite:
            raise self._unfinished_or_another(found)
        # Before the marker is written, so that heads of an earlier sweep never count as this one's.
        for file in (*(self.path / name for name in RESULTS), *self.path.glob("*/*"), *self.path.glob(".*")):
            if file != lock_of(self.path):
                file.unlink(missing_ok=True)
        write_json(self.path / MARKER, self._content | {"made": self._made})

    def _unfinished_or_another(self, found: dict[str, Any]) -> UserError:
        if self._other_part(found) is not None:
            return another_sweep(self.path)
        wanted = {head_id(config) for config in self._configs}
        return unfinished_sweep(self.path, len(wanted & heads_done(self.path)), self.n_heads)

    @property
    def n_heads(self) -> int:
        """Number of heads in the whole sweep."""
        return len(self._configs)

    @property
    def is_started(self) -> bool:
        """Whether the folder holds this sweep."""
        found = read_marker(self.path)
        return found is not None and self._is_this(found)

    @cached_property
    def head_ratio(self) -> float | None:
        """`head_ratio` for reporting head and tail accuracy; None if each head uses its own.

        Valid once `prepare` has run.
        """
        found = read_marker(self.path)
        return self._config.base.head_ratio if found is None else split_ratio(found)

    def _is_this(self, found: dict[str, Any]) -> bool:
        return is_alike(self._config, found) and self._other_part(found) is None

    def _other_part(self, found: dict[str, Any]) -> str | None:
        return other_part(found["store"], self._store, self._content["store"], self.path)

    def _check_same(self, found: dict[str, Any] | None) -> None:
        if found is None:
            raise UserError(f"{self.path / MARKER}: damaged; start over with --overwrite")
        if (other := self._other_part(found)) is not None:
            raise UserError(
                f"{self.path}: a sweep of another store than {self._store.path} ({other} differs); use that "
                "store, or another --out"
            )
        started, asked = UNRECORDED | found["options"], self._content["options"]
        name = differing_option(started, asked, is_ranking_bound(self._config))
        if name is not None:
            raise UserError(
                f"{self.path}: cannot resume: {name} was {started.get(name)}, this command has "
                f"{asked.get(name)}; repeat the interrupted command, or start over with --overwrite"
            )

    def _check_accuracy_known(self) -> None:
        base = self._config.base
        score = f"{base.select_on}_{SCORES[base.rank_by]}"
        lacking = [row for row in self.rows() if row["diverged_at"] is None and score not in row]
        if lacking:
            raise UserError(
                f"{self.path}: {len(lacking)} heads of an older version have no {base.rank_by} accuracy to "
                "rank by; leave --rank-by out, or start over with --overwrite"
            )

    def _resume(self, found: dict[str, Any]) -> None:
        """Update sweep.json if an older version wrote it or the ranking rule changed."""
        options = dict(self._content["options"])
        former = {one.method for one in self._configs if is_former(one.method, found["options"])}
        if former:
            note(
                f"{self.path}: an older version started this sweep, and {former.pop()} has changed since "
                "(see docs/methods.md); its heads are trained again, those of other methods stay"
            )
            for name in RESULTS:  # they hold the former heads
                (self.path / name).unlink(missing_ok=True)
        if "rank_by" not in found["options"] and options["rank_by"] == UNRECORDED["rank_by"]:
            del options["rank_by"]  # so that it stays the same, whatever the default
        one_split = found.get("one_split") or "head_ratio" not in varied_options(options)
        content = self._content | {"options": options, "one_split": one_split}
        if content != found:
            # Former heads stay in the folder, so the number of files no longer says how many heads are done.
            made = {k: v for k, v in self._made.items() if k != "n_heads" or not former}
            write_json(self.path / MARKER, content | {"made": made})

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the heads that are done.

        Raises:
            UserError: a file is damaged.
        """
        wanted, rows = {head_id(config) for config in self._configs}, []
        for file in sorted((self.path / DONE).glob("*.json")):
            try:
                found = json.loads(file.read_text())
                if not all(row.keys() >= ROW_COLUMNS for row in found):
                    raise ValueError("a row lacks a column")
                rows += [row for row in found if row["head"] in wanted]
            except (ValueError, TypeError, AttributeError) as error:
                raise UserError(f"{file}: damaged ({error}); remove it and continue with --resume") from error
        return rows

    def keep(
        self,
        rows: list[dict[str, Any]],
        layers: list[Layer | None],
        held: list[np.ndarray | None] | None = None,
    ) -> None:
        """Write the results of a batch of heads: layers first, then the rows, which mark it as done.

        Which held-out images each head gets right, `held`, is left out.
        """
        if self._config.heads:
            for row, layer in zip(rows, layers, strict=True):
                if layer is not None:
                    with whole_file(self.path / HEADS / f"{row['head']}.pt") as unfinished:
                        torch.save(saved_parts(layer), unfinished)
        write_json(self.path / DONE / f"{rows[0]['head']}.json", without_nan(rows))

    @cached_property
    def _named(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Id, configuration name and options of each head."""
        options = [asdict(config) for config in self._configs]
        names = name_configurations([effective_options(one) for one in options])
        ids = [head_id(config) for config in self._configs]
        own = [{k: v for k, v in one.items() if k not in WHERE} for one in options]
        return list(zip(ids, names, own, strict=True))

    def results(self, rows: list[dict[str, Any]]) -> pd.DataFrame:
        """Rows of heads preceded by their options, in the order of the configurations."""
        return results_frame(self._named, rows)

    def finish(self) -> Sweep:
        """Write results.csv, results.parquet and ranking.csv.

        Raises:
            UserError: a head is missing, for instance because another machine's files arrive late.
        """
        results = self.results(self.rows())
        missing = len(self._configs) - len(results)
        if missing:
            raise UserError(f"{self.path / DONE}: {missing} heads are missing; continue with --resume")
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
