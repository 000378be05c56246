"""Nothing that `analyze` does grows with the square of the classes."""

import tracemalloc
from pathlib import Path

from made_runs import made_run, write_made_run

from finetune.analyze import analyze
from finetune.config import AnalyzeConfig

MANY = 1_000  # a matrix of a byte for each pair of classes would be 1 MB, and 4 MB of twice as many


def peak(tmp_path: Path, n_classes: int) -> int:
    """Bytes at the most while two runs are analyzed."""
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


def test_memory_grows_with_classes_and_not_with_their_square(tmp_path, monkeypatch):
    """Pixels, of which there are the same for any number of classes, are left out."""
    monkeypatch.setattr("finetune.report_files._png", lambda figure: b"")
    peak(tmp_path, 100)  # imports, caches
    few, many = peak(tmp_path, MANY), peak(tmp_path, 2 * MANY)
    assert many - few < 2_500 * MANY  # bytes a class
