"""Which runs may stand in one table: those about the same images, each once."""

from collections import Counter
from typing import Any

from finetune.idle import draws
from finetune.run import Run, RunError
from store.notes import note

SHOWN_DIGITS = 12  # of a fingerprint


def refuse_unlike(runs: list[Run]) -> None:
    """Raise RunError where runs are not about the same classes, training counts, test labels and images.

    A run whose store does not say which images it is of is compared by all the rest, with a note.
    """
    for run in runs[1:]:
        _refuse_other_classes(run, runs[0])
    silent = [run for run in runs if _fingerprint(run) is None]
    known = [run for run in runs if _fingerprint(run) is not None]
    for run in known[1:]:
        if _fingerprint(run) != _fingerprint(known[0]):
            raise RunError(
                f"{run.path}: is of {_data_set(run)}, and {known[0].path} of {_data_set(known[0])}; other "
                "images, or the same split otherwise, make no seeds of one configuration: analyze them apart"
            )
    _refuse_other_contents(runs)
    for run in silent if len(runs) > 1 else ():
        note(
            f"{run.path}: its store does not say which images it is of; classes, training counts and test "
            "labels are those of the other runs, so the images are taken for the same"
        )


def _refuse_other_contents(runs: list[Run]) -> None:
    """Files of the same names may hold other images; stores of version 0.1 do not say what theirs held."""
    known = [run for run in runs if _made_from(run).get("content")]
    for run in known[1:]:
        if _made_from(run)["content"] != _made_from(known[0])["content"]:
            raise RunError(
                f"{run.path}: is of {_place(run)}, and {known[0].path} of {_place(known[0])}, where files of "
                "the same names hold other images; no seeds of one configuration: analyze them apart"
            )
    by_name = [run for run in runs if _is_known_by_name(run)]
    if by_name and len({run.phase1_digest for run in runs}) > 1:
        note(
            f"{by_name[0].path}: its store kept the names of images and no digests, as version 0.1 did "
            f"({len(by_name)} of {len(runs)} runs); files of the same names are taken for the same images"
        )


def _is_known_by_name(run: Run) -> bool:
    made = _made_from(run)
    return made["dataset"] == "imagefolder" and not made.get("content") and _fingerprint(run) is not None


def _refuse_other_classes(run: Run, first: Run) -> None:
    classes = ["class_name", "n_train"]
    images = ["sample_index", "label"]
    if not (
        run.per_class[classes].equals(first.per_class[classes])
        and run.predictions[images].equals(first.predictions[images])
    ):
        raise RunError(
            f"{run.path}: is about other classes, training counts or test images than {first.path}; "
            "analyze the runs of one data set and one long tail at a time"
        )


def _made_from(run: Run) -> dict[str, Any]:
    return run.config["provenance"]["store"]["dataset"]


def _fingerprint(run: Run) -> str | None:
    found = _made_from(run).get("fingerprint")
    return found if isinstance(found, str) and found else None


def _data_set(run: Run) -> str:
    """The data set as the user knows it, and the first digits of its fingerprint."""
    return f"{_place(run)} (fingerprint {_fingerprint(run)[:SHOWN_DIGITS]}…)"


def _place(run: Run) -> str:
    made = _made_from(run)
    return f"the data set {made.get('root') or made['dataset']}"


def refuse_same(runs: list[Run], names: list[str]) -> None:
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
                f"{run.path}: is the same run as {seen[key].path} (configuration, seed and Phase I are "
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
