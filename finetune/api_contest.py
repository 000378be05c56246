"""`contest` of `import tailcache`."""

from collections.abc import Iterable
from os import PathLike
from typing import Any

from finetune.calls import Place, computing, path_text
from finetune.commands import early
from finetune.commands.failures import as_user_errors
from finetune.contest.config import ContestConfig
from finetune.contest.contest import contest as run_contest
from finetune.contest.field import Contest
from finetune.keywords import checked_options
from store.errors import UserError
from store.reader import FeatureStore


@as_user_errors()
def contest(
    store: FeatureStore | Place | Iterable[FeatureStore | Place],
    *,
    out: Place,
    methods: str | Iterable[str] | None = None,
    progress: bool = False,
    **options: Any,
) -> Contest | None:
    """Try every method of Phase II with its grid, rank them on the validation split, run the winner.

    Args:
        store: a store from `open_store`, or its path; or several, whose results are averaged.
        out: folder for the contest.
        methods: names of those that take part; None for all.
        progress: show a bar on stderr.
        options: options of `tailcache contest`, such as seeds=5.

    Returns:
        The contest: `table`, a row per method, best first; `heads`, a row per head; `best`, folders of the
        best method's runs, one for each store, and `average`, those of an average that is better on val.
        Under torchrun, None in all processes but the first.

    Raises:
        UserError: a store, an option or the folder cannot be used.
        Interrupted: on Ctrl-C; `resume=True` continues.
    """
    if out is None:
        raise UserError("contest: keeps its heads in a folder; give it with out=")
    several = (
        list(store) if isinstance(store, Iterable) and not isinstance(store, str | PathLike) else [store]
    )
    paths = [str(one.path) if isinstance(one, FeatureStore) else path_text(one) for one in several]
    named = options | {"out": out}
    if methods is not None:
        if not isinstance(methods, Iterable):
            raise UserError(f"contest: methods is {methods!r}; expected names, as fsa,crt or a list")
        named["methods"] = methods if isinstance(methods, str) else ",".join(map(str, methods))
    checked = checked_options(ContestConfig, "contest", named)
    config = ContestConfig(tuple(paths), **checked)
    early.check_contest(config)
    with computing(progress) as bar:
        return run_contest(config, bar)
