"""What an interrupted run leaves, so that it can be gone on with and end in the same bytes."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from analysis.options import PLACES, WAYS
from extract.torch_files import Kind, read_torch_file
from finetune.config import FinetuneConfig
from finetune.methods.options import EARLIER, as_begun, effective_options
from finetune.run_folder import refuse_unfinished, unfinished_path
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


@dataclass
class Latest:
    """The latest state of a run, None before its start."""

    state: dict[str, Any] | None = None


class UnfinishedRun:
    """The state of a run on its way, read once where it is to be gone on with.

    Attributes:
        path: of its file.
        config: the options, choosing as the run does that an earlier program began.
        identity: of the store.
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

    def refuse_existing(self, resume: bool, overwrite: bool) -> None:
        """Raise UserError for a state that is neither to be gone on with nor to be replaced.

        One that is to be replaced stays until there is something in its place.
        """
        if self.path.exists() and overwrite:
            _content(self.path)  # that it is ours
        elif not resume:
            refuse_unfinished(self._out)

    def save(self, state: dict[str, Any]) -> None:
        """Write the state, whole or not at all."""
        content = KIND.marks | {"options": json.dumps(self._options), "store": self.identity.digests}
        with whole_file(self.path) as unfinished:
            torch.save(content | {"state": state}, unfinished)

    def load(self) -> dict[str, Any] | None:
        """What `save` wrote, for the first who asks; None where there is nothing to go on with.

        Raises:
            UserError: it is of other options or another store.
        """
        content, self._begun = self._begun, None  # weights, velocity and the best head are held once
        if content is None:
            return None
        begun, state = content["store"], content["state"]
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
        return state

    @contextmanager
    def kept_when_interrupted(self) -> Iterator["Latest"]:
        """Yield a place for the latest state: on Ctrl-C it is saved, and Interrupted raised."""
        latest = Latest()
        try:
            yield latest
        except KeyboardInterrupt as error:
            if latest.state is None:
                raise
            self.save(latest.state)
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
