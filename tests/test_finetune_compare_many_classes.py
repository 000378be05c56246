"""Nothing in `analyze` grows with the square of the number of classes."""

import tracemalloc
from pathlib import Path

from made_runs import made_run, write_made_run

from finetune.compare.analyze import analyze
from finetune.compare.config import AnalyzeConfig

MANY = 6_000


def peak(tmp_path: Path, n_classes: int) -> int:
    """Peak bytes while two runs are analyzed."""
    runs = [
        write_made_run(made_run(tmp_path / f"{n_classes}_{i}", n_classes, i, per_class=1)) for i in (0, 1)
    ]
    config = AnalyzeConfig(tuple(map(str, runs)), str(tmp_path / "report"))
    tracemalloc.start()
    try:
        analyze(config)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_not_a_byte_for_each_pair_of_classes(tmp_path, monkeypatch):
    """Pixels are not counted, since their number is the same for any number of classes."""
    monkeypatch.setattr("finetune.compare.files._png", lambda figure: b"")
    assert peak(tmp_path, MANY) < 0.7 * MANY**2
