"""What an interrupted run leaves, so that it can be gone on with and end in the same bytes."""

import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from analysis.options import PLACES, WAYS
from extract.torch_files import Kind, read_torch_file
from finetune.config import FinetuneConfig
from finetune.methods.options import EARLIER, as_begun, effective_options
from finetune.run_folder import check_no_unfinished, unfinished_path
from finetune.store_identity import identify, other_part
from store.errors import Interrupted, UserError
from store.notes import note
from store.options import flag
from store.reader import FeatureStore
from store.storage.atomic import whole_file

KIND = Kind(
    "the state of an interrupted run",
    "tailcache-unfinished-run",
    "remove it and begin anew",
    ("options", "store", "state"),
)
MAY_CHANGE = PLACES | WAYS
NOTE_EVERY = 1.0  # seconds between states that Ctrl-C saves
SAVE_EVERY = 30.0  # seconds between states that a killed run can be gone on with from


class LatestState:
    """The latest state of a run: at hand every second, and on the disk every half minute.

    Attributes:
        state: None before the run's start.
    """

    def __init__(self, save: Callable[[dict[str, Any]], None] | None = None):
        """Nothing is written without `save`."""
        self.state: dict[str, Any] | None = None
        self._save = save
        self._noted = self._saved = time.perf_counter()

    def note(self, state: dict[str, Any]) -> None:
        """Have a state at hand."""
        self.state, self._noted = state, time.perf_counter()

    def note_now_and_then(self, state_of: Callable[[], dict[str, Any]]) -> None:
        """Have a state at hand, and write it, if it is time to."""
        now = time.perf_counter()
        if now - self._noted > NOTE_EVERY:
            self.note(state_of())
        if self._save is not None and now - self._saved > SAVE_EVERY:
            self._save(self.state)
            self._saved = now


class UnfinishedRun:
    """The state of a run on its way, read once where it is to be gone on with.

    Attributes:
        path: of its file.
        config: the options, choosing as the run does that an earlier program began.
        identity: of the store.
        latest: state of the run.
    """

    def __init__(self, config: FinetuneConfig, store: FeatureStore, named: Collection[str] = ()):
        """Look for it.

        Raises:
            UserError: it is to be gone on with, and cannot be read, or was begun by an earlier program that
                did otherwise than the user names.
        """
        self._out, self.path = config.out, unfinished_path(config.out)
        self._begun = _content(self.path) if config.resume and self.path.exists() else None
        self.config = config if self._begun is None else self._as_begun(config, named)
        self._options = {k: v for k, v in asdict(self.config).items() if k not in MAY_CHANGE}
        self._store, self.identity = store, identify(store)
        self.latest = LatestState(self._save)

    def _as_begun(self, config: FinetuneConfig, named: Collection[str]) -> FinetuneConfig:
        begun = as_begun(config, json.loads(self._begun["options"]))
        for name in sorted(effective_options(asdict(begun)).keys() & set(named)):
            was, asked = getattr(begun, name), getattr(config, name)
            if was != asked:
                raise UserError(
                    f"{self.path}: cannot resume: an earlier program began this run with {name} {was}, and "
                    f"one run has one rule; leave {flag(name)} {asked} out, or begin anew with --overwrite"
                )
        if begun.rank_by != config.rank_by and begun.keep == "best":
            chose = "an earlier program began this run, and chose by overall accuracy; it goes on so"
            note(f"{self.path}: {chose}")
        return begun

    def check_replaceable(self, resume: bool, overwrite: bool) -> None:
        """Raise UserError for a state that is neither to be gone on with nor to be replaced.

        One that is to be replaced stays until there is something in its place.
        """
        if self.path.exists() and overwrite:
            _content(self.path)  # that it is ours
        elif not resume:
            check_no_unfinished(self._out)

    def _save(self, state: dict[str, Any]) -> None:
        """Write a state, whole or not at all."""
        content = KIND.marks | {"options": json.dumps(self._options), "store": self.identity.digests}
        with whole_file(self.path) as unfinished:
            torch.save(content | {"state": state}, unfinished)

    def load(self) -> None:
        """Take the state of the file for the latest, where there is one to go on with.

        Raises:
            UserError: it is of other options or another store.
        """
        content, self._begun = self._begun, None  # weights, velocity and the best head are held once
        if content is None:
            return
        begun = content["store"]
        options = EARLIER | json.loads(content["options"])
        if (other := other_part(begun, self._store, self.identity.digests, self.path)) is not None:
            raise UserError(
                f"{self.path}: is of another store than {self._store.path} ({other} differs); name that one, "
                "or begin with --overwrite"
            )
        for name, asked in self._options.items():
            if options.get(name) != asked:
                raise UserError(
                    f"{self.path}: cannot resume: {name} was {options.get(name)}, this command asks {asked}; "
                    "repeat the interrupted command, or begin anew with --overwrite"
                )
        self.latest.state = content["state"]

    @contextmanager
    def saved_when_interrupted(self) -> Iterator[None]:
        """On Ctrl-C save the latest state, if there is one, and raise Interrupted."""
        try:
            yield
        except KeyboardInterrupt as error:
            if self.latest.state is None:
                raise
            self._save(self.latest.state)
            raise Interrupted from error

    def remove(self) -> None:
        """Forget it."""
        self.path.unlink(missing_ok=True)


def _content(path: Path) -> dict[str, Any]:
    content = read_torch_file(path, KIND)
    try:
        json.loads(content["options"])
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); {KIND.advice}") from error
    return content
