"""State of an interrupted run: saved, and resumed so that the run ends in the same bytes."""

import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from analysis.options import PLACES, WAYS
from extract.checkpoints.torch_files import TorchFormat, read_torch_file
from finetune.config import FinetuneConfig
from finetune.methods.options import EARLIER, as_started, effective_options
from finetune.run_folder import check_no_unfinished, unfinished_path
from finetune.store_identity import identify, other_part
from store.errors import Interrupted, UserError
from store.notes import note
from store.options import flag
from store.reader import FeatureStore
from store.storage.atomic import whole_file

RUN_FORMAT = TorchFormat(
    "the state of an interrupted run",
    "tailcache-unfinished-run",
    "remove it and start over",
    ("options", "store", "state"),
)
MAY_CHANGE = PLACES | WAYS
KEEP_EVERY = 1.0  # seconds between states kept in memory, which Ctrl-C saves
SAVE_EVERY = 30.0  # seconds between states written to disk, from which a killed run resumes


class LatestState:
    """The latest state of a run: kept in memory every second, saved to disk every half minute.

    Attributes:
        state: the state; None before training starts.
    """

    def __init__(self, save: Callable[[dict[str, Any]], None] | None = None):
        """Keep states in memory; without `save` nothing is written."""
        self.state: dict[str, Any] | None = None
        self._save = save
        self._kept = self._saved = time.perf_counter()

    def keep(self, state: dict[str, Any]) -> None:
        """Keep a state in memory."""
        self.state, self._kept = state, time.perf_counter()

    def keep_when_due(self, state_of: Callable[[], dict[str, Any]]) -> None:
        """Keep a new state and save the latest, each when its time has come."""
        now = time.perf_counter()
        if now - self._kept > KEEP_EVERY:
            self.keep(state_of())
        if self._save is not None and now - self._saved > SAVE_EVERY:
            self._save(self.state)
            self._saved = now


class UnfinishedRun:
    """The saved state of an unfinished run; read once, when resuming.

    Attributes:
        path: its file.
        config: the options; for a run that an older version started, with that version's defaults.
        identity: identity of the store.
        latest: latest state of the run.
    """

    def __init__(self, config: FinetuneConfig, store: FeatureStore, named: Collection[str] = ()):
        """Read the file if `config.resume` is set and it exists.

        Raises:
            UserError: the file cannot be read, or an older version started the run with another value of an
                option that the user gave.
        """
        self._out, self.path = config.out, unfinished_path(config.out)
        self._found = _content(self.path) if config.resume and self.path.exists() else None
        self.config = config if self._found is None else self._as_started(config, named)
        self._options = {k: v for k, v in asdict(self.config).items() if k not in MAY_CHANGE}
        self._store, self.identity = store, identify(store)
        self.latest = LatestState(self._save)

    def _as_started(self, config: FinetuneConfig, named: Collection[str]) -> FinetuneConfig:
        started = as_started(config, json.loads(self._found["options"]))
        matter = effective_options(asdict(started)).keys() | effective_options(asdict(config)).keys()
        # The sampling first: with another one, other options do not matter.
        for name in sorted(matter & set(named), key=lambda name: (name != "sampling", name)):
            was, asked = getattr(started, name), getattr(config, name)
            if was != asked:
                raise UserError(
                    f"{self.path}: cannot resume: an older version started this run with {name} {was}, not "
                    f"{asked}; leave {flag(name)} {asked} out, or start over with --overwrite"
                )
        if started.rank_by != config.rank_by and started.keep == "best":
            note(f"{self.path}: an older version started this run; it still chooses by overall accuracy")
        return started

    def check_replaceable(self, resume: bool, overwrite: bool) -> None:
        """Raise UserError if there is a saved state and the user asks neither to resume nor to replace it.

        A state that is replaced stays until the new one is written.
        """
        if self.path.exists() and overwrite:
            _content(self.path)  # raises unless the file is ours
        elif not resume:
            check_no_unfinished(self._out)

    def _save(self, state: dict[str, Any]) -> None:
        """Write a state, completely or not at all."""
        content = RUN_FORMAT.marks | {"options": json.dumps(self._options), "store": self.identity.digests}
        with whole_file(self.path) as unfinished:
            torch.save(content | {"state": state}, unfinished)

    def load(self) -> None:
        """Make the state that was read the latest one, if there is one.

        Raises:
            UserError: it belongs to other options or to another store.
        """
        content, self._found = self._found, None  # so that weights, velocity and best head are held once
        if content is None:
            return
        options = EARLIER | json.loads(content["options"])
        if other := other_part(content["store"], self._store, self.identity.digests, self.path):
            raise UserError(
                f"{self.path}: belongs to another store than {self._store.path} ({other} differs); use that "
                "one, or start over with --overwrite"
            )
        for name, asked in self._options.items():
            if options.get(name) != asked:
                told = "repeat the interrupted command"
                if name == "method":  # the default was another one once
                    told += f" with --method {options.get(name)}"
                raise UserError(
                    f"{self.path}: cannot resume: {name} was {options.get(name)}, this command has {asked}; "
                    f"{told}, or start over with --overwrite"
                )
        self.latest.state = content["state"]

    @contextmanager
    def saved_when_interrupted(self) -> Iterator[None]:
        """On Ctrl-C, save the latest state if there is one, and raise Interrupted."""
        try:
            yield
        except KeyboardInterrupt as error:
            if self.latest.state is None:
                raise
            self._save(self.latest.state)
            raise Interrupted from error

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def _content(path: Path) -> dict[str, Any]:
    content = read_torch_file(path, RUN_FORMAT)
    try:
        json.loads(content["options"])
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); {RUN_FORMAT.advice}") from error
    return content
