"""Which runs may stand in one table: those about the same images, each once."""

from collections import Counter

from finetune.compare.same_images import check_same_images
from finetune.methods.idle import draws
from finetune.run import Run, RunError
from store.notes import note


def check_alike(runs: list[Run]) -> None:
    """Raise RunError where runs are not about the same classes, training counts, test labels and images.

    A run whose store does not say which images it is of is compared by all the rest, with a note.
    """
    for run in runs[1:]:
        _check_same_classes(run, runs[0])
    check_same_images(runs)


def _check_same_classes(run: Run, first: Run) -> None:
    classes = ["class_name", "n_train"]
    images = ["sample_index", "label"]
    if not (
        run.per_class[classes].equals(first.per_class[classes])
        and run.predictions[images].equals(first.predictions[images])
    ):
        raise RunError(
            f"{run.name}: is about other classes, training counts or test images than {first.name}; "
            "analyze the runs of one data set and one long tail at a time"
        )


def check_distinct(runs: list[Run], names: list[str]) -> None:
    """Raise RunError for one run under two names: it would count as two seeds, and lower the deviation.

    Args:
        runs: the runs.
        names: of their configurations.
    """
    seen: dict[tuple, Run] = {}
    for run, name in zip(runs, names, strict=True):
        key = (name, run.config["seed"], run.phase1_digest)
        if key in seen:
            raise RunError(
                f"{run.name}: is the same run as {seen[key].name} (configuration, seed and Phase I are "
                "one); name one of them"
            )
        seen[key] = run


def note_repeated(runs: list[Run], names: list[str]) -> None:
    """Say which runs of a method that draws nothing differ in their seed alone: they have the same head."""
    alike = zip(names, runs, strict=True)
    counted = Counter((name, run.phase1_digest) for name, run in alike if not draws(run.config))
    for (name, _), n in counted.items():
        if n > 1:
            note(f"{name}: draws nothing, so its {n} runs on one Phase I have one head; ± tells nothing")
