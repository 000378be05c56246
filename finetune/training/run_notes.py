"""What the user should know about a finished run."""

from collections.abc import Iterable
from typing import Any

from finetune.methods.idle import idle_in_words, idle_options
from finetune.training.recognised import warning_of


def notes_on_run(config: dict[str, Any], given: Iterable[str]) -> list[str]:
    """Notes in one line each: options without effect, and fused samples that are often of another class.

    Args:
        config: resolved options and facts, as in config.json.
        given: names of the options that the user gave.
    """
    warning = warning_of(config["facts"])
    idle = [idle_in_words(name, [config]) for name in idle_options(config, given)]
    return idle if warning is None else [*idle, warning]
