"""Names in figures and lines: unique at any length, no invisible characters, in fonts that have them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bad_input import succeed
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import made_run, write_made_run
from matplotlib.font_manager import fontManager

from analysis.figures import fonts
from analysis.figures.confusion import N_PAIRS, grouped_confusion_figure
from analysis.figures.labels import LONGEST_NAME, label_of, labels_of
from analysis.figures.per_class import class_accuracy_figure
from analysis.tables import PHASE_1

LONG = [f"long class name number {i} of many" for i in range(400)]
OVERRIDE = "evil\u202egnp.exe"


def test_long_names_that_differ_in_their_middle_have_unlike_labels():
    labels = labels_of(LONG)
    assert len(set(labels)) == 400
    assert max(map(len, labels)) <= LONGEST_NAME
    assert all(str(i) in label for i, label in enumerate(labels))
    assert label_of(LONG[7]) == "long class name… of many"  # alone it needs no number


@given(st.lists(st.text("ab", min_size=20, max_size=60), max_size=30), st.integers(8, 24))
@settings(max_examples=100, deadline=None)
def test_labels_of_one_length_and_of_one_name_each(names, longest):
    labels = dict(zip(names, labels_of(names, longest), strict=True))
    assert all(len(label) <= longest for label in labels.values())
    by_end = {}
    for name, label in labels.items():
        by_end.setdefault(label, set()).add(name)
    assert max(map(len, by_end.values()), default=1) == 1


def test_labels_that_nothing_tells_apart_have_their_place():
    names = ["x" * 30 + "a" + "y" * 30, "x" * 30 + "b" + "y" * 30]  # one name equals another's label
    names += [labels_of(names)[0]]
    assert len(set(labels_of(names))) == 3


def test_extremes_and_pairs_of_long_names_are_told_apart():
    per_class = pd.DataFrame({"class_name": LONG, "n_train": np.arange(400, 0, -1), PHASE_1: 50.0})
    changes = pd.DataFrame({"fsa": np.linspace(-9, 9, 400)})
    *_, extremes = class_accuracy_figure(per_class.assign(fsa=50.0), changes, [PHASE_1]).axes
    names = [text.get_text().partition(" (")[0] for text in extremes.get_yticklabels()]
    assert len(set(names)) == 12
    assert "399 of many" in names[0]
    pairs = pd.DataFrame({"true_id": range(30), "predicted_id": range(1, 31)})
    pairs = pairs.assign(count_before=3.0, count_after=2.0)
    matrix = np.eye(2)
    aside = grouped_confusion_figure(matrix, matrix, ["9", "1"], pairs, LONG, "fsa").axes[2]
    told = [text.get_text().split(" → ") for text in aside.get_yticklabels()]
    assert len(told) == N_PAIRS
    assert all(true != predicted for true, predicted in told)


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.figures
def test_no_name_turns_a_line_round():
    names = [f"{OVERRIDE}{i}" for i in range(12)]
    run = write_made_run(made_run(Path("run"), 12, per_class=20, class_names=names))
    printed = succeed("analyze", run).stdout
    assert "\\u202e" in printed
    assert {c for c in printed if not c.isprintable()} == {"\n"}
    assert labels_of(names[:1]) == [r"'evil\u202egnp.exe0'"]
    assert pd.read_csv("report/per_class.csv")["class_name"].tolist() == names  # files keep what was given


@pytest.fixture
def own_font_alone(monkeypatch):
    """A machine with matplotlib's font only."""
    monkeypatch.setattr(fontManager, "ttflist", [f for f in fontManager.ttflist if f.name == fonts.OWN])
    monkeypatch.setattr(fonts, "findSystemFonts", list)
    fonts._families.cache_clear()
    yield
    fonts._families.cache_clear()


@pytest.mark.usefixtures("in_tmp_path", "own_font_alone")
@pytest.mark.parametrize(("script", "n"), [("", 0), ("é", 0), ("猫", 2)])
@pytest.mark.figures
def test_names_that_no_font_draws_are_counted_in_one_note(script, n):
    names = [f"class{i}{script if i < 2 else ''}" for i in range(12)]
    run = write_made_run(made_run(Path("run"), 12, per_class=5, class_names=names))
    assert fonts.undrawable(["\ue000"]) == []  # private use: escaped, like any invisible one
    assert labels_of(["\ue000"]) == [r"'\ue000'"]
    told = [line for line in succeed("analyze", run).stderr.splitlines() if "font" in line]
    assert len(told) == (n > 0)
    if n:
        assert "note: 2 of 12 class names have characters that no installed font has" in told[0]
        assert "(class0猫 is the first)" in told[0]
        assert "Noto Sans CJK" in told[0]


def test_a_font_that_was_installed_since_is_found(monkeypatch):
    """matplotlib caches its list of fonts for days."""
    own = next(font for font in fontManager.ttflist if font.name == "DejaVu Sans Mono")
    monkeypatch.setattr(fontManager, "ttflist", [f for f in fontManager.ttflist if "Mono" not in f.name])
    monkeypatch.setattr(fonts, "findSystemFonts", lambda: [own.fname, "/no/such/font.ttf"])
    monkeypatch.setattr(fonts, "_drawn_by", lambda path: frozenset("a猫" if path == own.fname else "a"))
    fonts._families.cache_clear()
    assert fonts.undrawable(["a", "猫"]) == []
    assert fonts._families(frozenset("a猫"))[0] == ("DejaVu Sans", "DejaVu Sans Mono")
    fonts._families.cache_clear()
