"""Whether runs are of the same images: by digests if recorded, else by names and predictions."""

from typing import Any

from extract.sources.registry import SOURCES
from finetune.run import Run, RunError
from finetune.store_identity import NETWORK
from store.notes import note

SHOWN_DIGITS = 12  # of a fingerprint, in messages
# Share of predictions that may differ when one network sees the same images on two machines: near-ties.
MOST_BY_ROUNDING = 0.02


def check_same_images(runs: list[Run]) -> None:
    """Raise RunError if runs are known to be of different images, in any split.

    Gaps are noted: without recorded images, classes and labels are compared; with only names of images, the
    names and Phase I's predictions.
    """
    silent = [run for run in runs if _fingerprint(run) is None]
    known = [run for run in runs if _fingerprint(run) is not None]
    for run in known[1:]:
        if _fingerprint(run) != _fingerprint(known[0]):
            raise RunError(
                f"{run.name}: is of {_data_set(run)}, but {known[0].name} is of {_data_set(known[0])}; runs "
                "of other images or another split cannot be compared; analyze them separately"
            )
    _check_same_contents(runs)
    _check_same_predictions(runs)
    for run in silent if len(runs) > 1 else ():
        note(
            f"{run.name}: its store does not record its images; classes, training counts and test labels are "
            "those of the other runs, so the images are assumed to be the same"
        )
    _note_by_name(runs)


def _check_same_contents(runs: list[Run]) -> None:
    """Files of the same names may hold other images: compare digests of all splits, of each, of features."""
    for run, first in _beside_first(runs, lambda run: _made_from(run).get("content")):
        if _made_from(run)["content"] != _made_from(first)["content"]:
            raise _other_images(run, first)
    for run, first in _beside_first(runs, lambda run: _identity(run)["images"]):
        if (split := _unlike(_identity(run)["images"], _identity(first)["images"])) is not None:
            raise _other_images(run, first, split)
    for of_network in _by_extraction(runs):
        without = [run for run in of_network if not _identity(run)["images"]]
        for run, first in _beside_first(without, lambda run: _identity(run)["digests"]):
            if (split := _unlike(_identity(run)["digests"], _identity(first)["digests"])) is not None:
                raise _other_images(run, first, split)


def _other_images(run: Run, first: Run, split: str | None = None) -> RunError:
    of_split = "" if split is None else f" in the {split} split"
    return RunError(
        f"{run.name}: is of {_place(run)}, and {first.name} of {_place(first)}, where files of the same "
        f"names hold other images{of_split}, so they cannot be compared; analyze them separately"
    )


def _check_same_predictions(runs: list[Run]) -> None:
    """One network predicts the same for the same images, except for near-ties."""
    for of_network in _by_extraction(runs):
        first = of_network[0]
        for run in of_network[1:]:
            unlike = run.predictions["phase1"].to_numpy() != first.predictions["phase1"].to_numpy()
            if unlike.sum() > 1 + MOST_BY_ROUNDING * len(unlike):
                raise RunError(
                    f"{run.name}: its Phase I predictions differ from those in {first.name} for "
                    f"{unlike.sum():,} of {len(unlike):,} test images, more than rounding explains: they are "
                    "other images of the same names and cannot be compared; analyze them separately"
                )


def _note_by_name(runs: list[Run]) -> None:
    by_name = [run for run in runs if _is_known_by_name(run)]
    stores = [_identity(run)["digests"] for run in runs]
    one_store = all(digests and digests == stores[0] for digests in stores)
    if by_name and len(runs) > 1 and not one_store:
        note(
            f"{by_name[0].name}: its store records names of images but no digests, as in version 0.1 "
            f"({len(by_name)} of {len(runs)} runs); files of the same names are assumed to be the same images"
        )


def _is_known_by_name(run: Run) -> bool:
    made = _made_from(run)
    known = made.get("content") or _identity(run)["images"] or _fingerprint(run) is None
    source = SOURCES.get(made["dataset"])  # None for a source that this version does not have
    return source is not None and source.files and not known


def _beside_first(runs: list[Run], known: Any) -> list[tuple[Run, Run]]:
    """Pairs of each run with known(run) and the first such run."""
    those = [run for run in runs if known(run)]
    return [(run, those[0]) for run in those[1:]]


def _by_extraction(runs: list[Run]) -> list[list[Run]]:
    """Groups of runs whose features were computed in the same way, so that only images make a difference."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        asked = run.config["provenance"]["store"]["config"]
        groups.setdefault((run.phase1_digest, asked["precision"], asked.get("views", 1)), []).append(run)
    return list(groups.values())


def _unlike(a: dict[str, str], b: dict[str, str]) -> str | None:
    """The first split that differs; the network is not compared here."""
    names = [name for name in {**a, **b} if name != NETWORK]
    return next((name for name in names if a.get(name) != b.get(name)), None)


def _identity(run: Run) -> dict[str, dict[str, str]]:
    """Digests of the store that a run was made from; empty for version 0.1, which recorded none."""
    return {"digests": {}, "images": {}} | run.config["provenance"].get("identity", {})


def _made_from(run: Run) -> dict[str, Any]:
    return run.config["provenance"]["store"]["dataset"]


def _fingerprint(run: Run) -> str | None:
    found = _made_from(run).get("fingerprint")
    return found if isinstance(found, str) and found else None


def _data_set(run: Run) -> str:
    """The data set in words, with the first digits of its fingerprint."""
    return f"{_place(run)} (fingerprint {_fingerprint(run)[:SHOWN_DIGITS]}…)"


def _place(run: Run) -> str:
    made = _made_from(run)
    return f"the data set {made.get('train') or made.get('root') or made['dataset']}"
