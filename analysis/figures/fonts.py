"""Fonts for names in any script: installed fonts for characters that matplotlib's own lacks."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import chain

from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, findSystemFonts, fontManager, get_font
from matplotlib.text import Text

OWN = "DejaVu Sans"
PREFERRED = (  # tried first, in this order
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans",
    "Source Han Sans",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
)


def use_fonts(figure: Figure) -> Figure:
    """Let all text of a figure fall back on fonts for other scripts; returns the figure."""
    texts = figure.findobj(Text)
    families, _ = _families(_characters(text.get_text() for text in texts))
    for text in texts:
        text.set_fontfamily(list(families))
    return figure


def undrawable(names: Iterable[str]) -> list[str]:
    """The names with characters that no installed font has."""
    names = list(names)
    _, missing = _families(_characters(names))
    return [name for name in names if not missing.isdisjoint(name)]


def _characters(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(c for c in set(chain.from_iterable(texts)) if c.isprintable() and not c.isspace())


@lru_cache
def _families(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Fonts that together draw the characters, matplotlib's own first, and the characters that none has."""
    families, missing = [OWN], characters - _drawn_by(fontManager.findfont(OWN))
    if missing:
        _note_new_fonts()
    for font in sorted(fontManager.ttflist, key=_rank):
        if missing:
            drawn = _drawn_by(font.fname)
            if not missing.isdisjoint(drawn):
                families.append(font.name)
                missing -= drawn
    return tuple(families), missing


def _rank(font: FontEntry) -> tuple:
    """Sort key: preferred fonts first, then upright and regular ones."""
    place = PREFERRED.index(font.name) if font.name in PREFERRED else len(PREFERRED)
    return place, font.style != "normal", font.weight != 400, font.name


def _note_new_fonts() -> None:
    """Add fonts installed since matplotlib made its list, which it caches for days."""
    listed = {font.fname for font in fontManager.ttflist}
    for path in findSystemFonts():
        if path not in listed:
            try:
                fontManager.addfont(path)
            except (RuntimeError, OSError, ValueError):  # not a font that matplotlib can read
                continue


@lru_cache(maxsize=32)
def _drawn_by(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (RuntimeError, OSError):  # removed since, or damaged
        return frozenset()
