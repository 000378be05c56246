"""The contest: train every entry's configurations in rounds, rank what they chose, run the winner."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.progress import Progress

from extract.device import keep_freed_memory, make_deterministic, use_device
from extract.torchrun.device import device_of_rank
from extract.training.interrupted.unfinished import note_extracted_early
from finetune.contest.averaged_run import write_average
from finetune.contest.choosing import choosing_on
from finetune.contest.comparable import check_comparable
from finetune.contest.config import ContestConfig
from finetune.contest.field import Contest, Field
from finetune.contest.folder import prepare
from finetune.heads.threads import single_threaded
from finetune.run import find_phase1
from finetune.sweep.processes import processes
from finetune.train import finetune
from finetune.training.trainer import LoadedStore
from store.errors import Interrupted
from store.notes import notes_kept_back
from store.reader import FeatureStore
from store.storage.location import locate
from store.storage.lock import sole_writer


def contest(
    config: ContestConfig, progress: Progress, show: Callable[[pd.DataFrame], None] | None = None
) -> Contest | None:
    """Try every entry on the stores, rank them on validation images or folds, and run the winner.

    Args:
        config: the options.
        progress: shows the number of heads done.
        show: called with the standings so far after each round; None for no display.

    Returns:
        The results; None in all processes but the first.

    Raises:
        UserError: a store, an option or the folder cannot be used, or no entry can take part.
        Interrupted: on Ctrl-C; the same options with `resume` continue the contest.
    """
    config.check()
    config = config.without_idle_folds()
    keep_freed_memory()
    make_deterministic()
    stores = [FeatureStore(locate(path)) for path in config.store]
    for store in stores:
        store.check_not_replaced()
        note_extracted_early(store)
        find_phase1(store, config.ckpt)  # the winner's run needs it, and has it at the end only
    path = Path(config.out)
    with ExitStack() as held:
        group = held.enter_context(processes(command="contest"))
        threads = held.enter_context(single_threaded())
        quiet = held.enter_context(ExitStack())
        quiet.enter_context(notes_kept_back(group.rank > 0))
        device = use_device(device_of_rank(config.device))
        loaded = [LoadedStore.open(store, config.shot_rule, device, threads) for store in stores]
        chosen_on = [choosing_on(config, one, progress) for one in loaded]
        field = Field(config, loaded, chosen_on, check_comparable(loaded, chosen_on, config))
        if group.rank == 0:
            held.enter_context(sole_writer(path, "contest"))
            prepare(config, stores)
        quiet.close()  # each process tells of its own heads
        group.meet()
        with _interruptible():
            field.run(group, progress, show)
            if group.rank > 0:
                return None
            found = field.finish(progress)
            _run_best(field, found, progress)
            _write_average(field, found)
            return found


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted() from error


def _run_best(field: Field, found: Contest, progress: Progress) -> None:
    """The winner's run folder for each store, with the network to deploy."""
    winner = field.winner(found.table)
    for i, out in enumerate(found.best):
        one = replace(field.chosen_config(winner, i), out=str(out), overwrite=True)
        finetune(one, progress, store=field.loaded[i].store)


def _write_average(field: Field, found: Contest) -> None:
    """The run folder of the average for each store, beside the winner's."""
    for i, out in enumerate(found.average):
        made_of = {one.entry: field.chosen_config(one.entry, i) for one in field.average.ingredients}
        config = replace(next(iter(made_of.values())), out=str(out))
        write_average(config, made_of, field.average.layers[i], field.loaded[i])
