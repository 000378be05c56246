"""Every block of docs/api.md and every cell of docs/tour.ipynb runs, in order, with the promised output."""

import json
import re
from pathlib import Path

import pytest
from bad_input import write_images

DOCS = Path(__file__).parent.parent / "docs"
BLOCKS = re.findall(r"```python\n(.*?)```", (DOCS / "api.md").read_text(), re.DOTALL)
TOUR = json.loads((DOCS / "tour.ipynb").read_text())
CELLS = ["".join(cell["source"]) for cell in TOUR["cells"] if cell["cell_type"] == "code"]
PER_CLASS = {"ape": 30, "bee": 12, "cat": 6, "dog": 4, "eel": 2}


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Names that blocks define, in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    return {}


def run_in_order(sources: list[str], names: dict, where: str) -> None:
    """Run pieces of code that share their names."""
    for number, source in enumerate(sources):
        exec(compile(source, f"{where}, block {number}", "exec"), names)


def test_the_blocks_of_the_api_page_run(names, capsys):
    write_images(Path("photos"), PER_CLASS, splits=("train", "val", "test"))
    run_in_order(BLOCKS, names, "api.md")
    assert names["table"]["n"].tolist() == [1, 1, 2]
    assert len(names["found"].ranking) == 3  # no-aug does not depend on tau_s
    printed = capsys.readouterr().out
    assert printed.endswith("finetune: no option methd; did you mean method?\n")
    assert [line.split()[1] for line in printed.splitlines()[1:6]] == sorted(PER_CLASS)
    assert len(BLOCKS) >= 7


def test_the_tour_goes_from_images_to_a_comparison(names):
    run_in_order(CELLS, names, "tour.ipynb")
    assert names["table"]["configuration"].tolist()[1:] == ["fsa", "no-aug"]
    assert names["table"]["n"].tolist() == [1, 3, 3]
    assert names["right"]["phase1"].mean() > 0.5  # the network has learnt something
    assert (names["table"]["tail_change"][1:] > 0).all()
    assert names["network"].classifier.out_features == 5


def test_the_tour_is_kept_without_what_it_printed():
    for cell in TOUR["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
