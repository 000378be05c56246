"""Which runs can be compared: runs of the same images, each given once."""

from collections import Counter

from finetune.compare.subsets import check_subsets
from finetune.methods.idle import draws
from finetune.run import Run, RunError
from store.notes import note


def check_alike(runs: list[Run], across_subsets: bool = False) -> None:
    """Raise RunError if runs differ in classes, training counts, test labels or images.

    If a run's store does not record its images, the rest is compared, with a note.

    Args:
        runs: the runs.
        across_subsets: whether they may be of several long-tailed subsets of one source.
    """
    for run in runs[1:]:
        _check_same_classes(run, runs[0])
    check_subsets(runs, across_subsets)


def _check_same_classes(run: Run, first: Run) -> None:
    classes = ["class_name", "n_train"]
    images = ["sample_index", "label"]
    if not (
        run.per_class[classes].equals(first.per_class[classes])
        and run.predictions[images].equals(first.predictions[images])
    ):
        raise RunError(
            f"{run.name}: has other classes, training counts or test images than {first.name}; analyze runs "
            "of one data set and one long tail at a time"
        )


def check_distinct(runs: list[Run], names: list[str]) -> None:
    """Raise RunError if a run is given twice: it would count as two seeds and lower the deviation.

    Args:
        runs: the runs.
        names: names of their configurations.
    """
    seen: dict[tuple, Run] = {}
    for run, name in zip(runs, names, strict=True):
        key = (name, run.config["seed"], run.phase1_digest)
        if key in seen:
            raise RunError(
                f"{run.name}: is the same run as {seen[key].name} (same configuration, seed and Phase I); "
                "give only one of them"
            )
        seen[key] = run


def note_repeated(runs: list[Run], names: list[str]) -> None:
    """Note runs that differ only in their seed, with a method that does not depend on it."""
    alike = zip(names, runs, strict=True)
    counted = Counter((name, run.phase1_digest) for name, run in alike if not draws(run.config))
    for (name, _), n in counted.items():
        if n > 1:
            same = f"its {n} runs on one Phase I are the same; ignore their ±"
            note(f"{name}: does not depend on the seed, so {same}")
