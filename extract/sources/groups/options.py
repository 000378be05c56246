"""The options that name groups of images, checked without heavy imports."""

import re
from typing import Any

from store.errors import UserError


def is_grouped(config: Any) -> bool:
    """Whether the DatasetConfig `config` names groups of images."""
    return config.group_column is not None or config.group_regex is not None


def groups_in_words(config: Any) -> str:
    """The option that names groups, as on the command line."""
    if config.group_column is not None:
        return f"--group-column {config.group_column}"
    return f"--group-regex {config.group_regex}"


def check_groups(config: Any) -> None:
    """Raise UserError for both options at once, or for something that is no regular expression."""
    if config.group_regex is None:
        return
    if config.group_column is not None:
        raise UserError(f"--group-column and {_regex(config)}: both name groups; leave out one of the two")
    try:
        re.compile(config.group_regex)
    except re.error as error:
        raise UserError(f"{_regex(config)}: is not a regular expression ({error})") from error


def _regex(config: Any) -> str:
    return f"--group-regex {config.group_regex}"
