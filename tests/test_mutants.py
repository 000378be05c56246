"""The wrong implementations of benchmarks/ still fit the code that they are to break."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_every_mutant_has_its_place_and_its_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from mutants import MUTANTS

    for mutant in MUTANTS:
        right = (ROOT / mutant.path).read_text()
        assert mutant.applied_to(right) != right  # and ValueError where the code has moved
        assert (ROOT / "tests" / f"{mutant.tests}.py").exists(), mutant.tests
    assert len({mutant.wrong for mutant in MUTANTS}) == len(MUTANTS)
