"""Names of classes and files: as a screen shows them, as a shell reads them, and in one Unicode form."""

import os
import shlex
import unicodedata


def shown(name: str) -> str:
    """A name on one line with nothing invisible in it: as it is, or as Python would write it."""
    return name if name.isprintable() else repr(name)


def visible(text: str) -> str:
    """A line with every character that a screen would not show, or would obey, as Python would write it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: object) -> str:
    """A word for a shell, in one line; bash and its kin read what no terminal can show."""
    text = str(value)
    if text.isprintable():
        return shlex.quote(text)
    escaped = (c if c.isprintable() and c not in "\\'" else _escaped(c) for c in text)
    return f"$'{''.join(escaped)}'"


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def composed(name: str) -> str:
    """A name in the Unicode form NFC: characters that are the same are the same code points in it."""
    return unicodedata.normalize("NFC", name)


def lookalikes(names: list[str]) -> tuple[str, str] | None:
    """The first two of some names that differ in their Unicode form alone."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(composed(name), name)
        if other != name:
            return other, name
    return None
