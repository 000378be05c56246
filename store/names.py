"""Names of classes and files: as a screen shows them, as a shell reads them, and in one Unicode form."""

import os
import shlex
import unicodedata


def shown(name: str) -> str:
    """A name as it is or, if it has invisible characters or line breaks, as a Python literal."""
    return name if name.isprintable() else repr(name)


def visible(text: str) -> str:
    """A line whose invisible and control characters are escaped as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: object) -> str:
    """A value quoted for a shell, on one line; invisible characters are escaped as bash reads them."""
    text = str(value)
    if text.isprintable():
        return shlex.quote(text)
    escaped = (c if c.isprintable() and c not in "\\'" else _escaped(c) for c in text)
    return f"$'{''.join(escaped)}'"


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def composed(name: str) -> str:
    """A name in the Unicode form NFC, in which equal characters are equal code points."""
    return unicodedata.normalize("NFC", name)


def alike(name: str) -> str:
    """A name without what people do not see or mean: case, kinds of spaces, invisible characters."""
    visible_only = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return " ".join(visible_only.casefold().split())


def lookalikes(names: list[str]) -> tuple[str, str] | None:
    """The first two names that differ only in their Unicode form, None if there are none."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(composed(name), name)
        if other != name:
            return other, name
    return None
