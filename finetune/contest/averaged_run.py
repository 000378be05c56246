"""The run folder of an average of heads, which everything that reads runs can read."""

from dataclasses import asdict, replace
from typing import Any

from finetune.config import FinetuneConfig
from finetune.methods.idle import draws
from finetune.methods.options import effective_options
from finetune.one_head import MadeHead
from finetune.run import find_phase1, write_run
from finetune.sampling.head_tail import split_head_tail
from finetune.store_identity import identify
from finetune.train import evaluated
from finetune.training.history import HeadHistory
from finetune.training.selection import Layer, accuracies
from finetune.training.trainer import LoadedStore, class_facts


def write_average(
    config: FinetuneConfig, ingredients: dict[str, FinetuneConfig], layer: Layer, loaded: LoadedStore
) -> None:
    """Write the run of an average, with the network to deploy.

    Its config.json has the options of the first ingredient, and under `average` what it is made of: an entry,
    the options that its head depends on and the seed, null without random draws, of each.

    Args:
        config: the first ingredient's, with the folder to write.
        ingredients: resolved configurations of the heads that were averaged, by entry.
        layer: the average.
        loaded: the store that the heads are of.

    Raises:
        UserError: Phase I's checkpoint is no longer there, or the store is another by now.
    """
    phase1 = find_phase1(loaded.store, config.ckpt)
    loaded.store.check_not_replaced()
    history = HeadHistory(config.rank_by)
    history.add_row(0, accuracies(loaded.held_out.get("val"), layer, loaded.threads), layer)
    facts = class_facts(split_head_tail(loaded.common.class_counts, config.head_ratio))
    made = MadeHead(layer, history, facts, None)
    run = evaluated(config, loaded, made, None, identify(loaded.store))
    content = run.config | {"average": [_recorded(*of) for of in ingredients.items()]}
    write_run(replace(run, config=content), phase1, tensorboard=False)


def _recorded(entry: str, config: FinetuneConfig) -> dict[str, Any]:
    options = asdict(config)
    seed = config.seed if draws(options) else None
    return {"entry": entry, "options": effective_options(options), "seed": seed}
