"""What the user should know about a finished run."""

from collections.abc import Iterable
from typing import Any

from finetune.methods.idle import idle_in_words, idle_options
from finetune.methods.registry import find_method
from finetune.training.recognised import FACT

# %: Algorithm 1 did harm where 50, 73 and 77 were recognised; from 82 on it gained or was level.
LEAST = 80.0


def notes_on_run(config: dict[str, Any], given: Iterable[str]) -> list[str]:
    """Notes in one line each: options without effect, and fused samples that are strangers to their class.

    Args:
        config: resolved options and facts, as in config.json.
        given: names of the options that the user gave.
    """
    idle = [idle_in_words(name, [config]) for name in idle_options(config, given)]
    return [*idle, *_on_strangers(config)]


def _on_strangers(config: dict[str, Any]) -> list[str]:
    """A note on Algorithm 1 where it may do harm; of other batches, losses and layers nothing was found."""
    share = config["facts"].get(FACT)
    if share is None or share >= LEAST or config["fuse_after"] is not None or config["loss"] != "ce":
        return []
    if not find_method(config["method"]).sampled(config["sampling"]).in_halves:
        return []
    return [
        f"Phase I's head, with the class shares taken off, recognises {share:g} % of the fused samples; on "
        f"features where it was less than {LEAST:g} %, --method no-aug did better than fsa"
    ]
