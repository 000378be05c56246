"""Runs of several long-tailed subsets of one source: told apart, and averaged only where one asks for it."""

from collections.abc import Iterable

from finetune.compare.same_images import check_same_images
from finetune.run import Run, RunError
from store.notes import note


def subset_seed(run: Run) -> int:
    """The seed of the images that a run's long-tailed subset keeps; 0 in stores of older versions."""
    return run.config["provenance"]["store"]["dataset"].get("subset_seed", 0)


def check_subsets(runs: list[Run], across: bool) -> None:
    """Raise RunError if runs are of different images, or of several subsets that are not to be averaged.

    Args:
        runs: of equal classes, training counts and test labels.
        across: whether several subsets of one source may be averaged.
    """
    seeds = list(dict.fromkeys(subset_seed(run) for run in runs))
    first = {seed: next(run for run in runs if subset_seed(run) == seed) for seed in seeds}
    if len(seeds) > 1 and not across:
        raise RunError(
            f"{first[seeds[1]].name}: is of the subset of --subset-seed {seeds[1]}, but "
            f"{first[seeds[0]].name} of that of {seeds[0]}, which holds other images; analyze them "
            "separately, or average over the subsets with --across-subsets"
        )
    for seed in seeds:
        check_same_images([run for run in runs if subset_seed(run) == seed])
    if len(seeds) > 1:
        _check_one_source(runs)
    elif across:
        note(f"--across-subsets changes nothing: all runs are of one subset (--subset-seed {seeds[0]})")


def _check_one_source(runs: list[Run]) -> None:
    """Raise RunError if subsets were drawn from different sources; a note tells what is not recorded."""
    sources = [_of_store(run).get("source_fingerprint") for run in runs]
    known = [(run, source) for run, source in zip(runs, sources, strict=True) if source is not None]
    tests = [run.config["provenance"].get("identity", {}).get("images", {}).get("test") for run in runs]
    tested = [(run, test) for run, test in zip(runs, tests, strict=True) if test is not None]
    for what, of_runs in (("drawn from", known), ("tested on", tested)):
        for run, found in of_runs[1:]:
            if found != of_runs[0][1]:
                raise RunError(
                    f"{run.name}: its subset was {what} other images than that of {of_runs[0][0].name}; "
                    "--across-subsets averages over subsets of one source, so analyze them separately"
                )
    silent = [run for run, source in zip(runs, sources, strict=True) if source is None]
    if silent:
        note(
            f"{silent[0].name}: its store does not record what its subset was drawn from, as in version 0.1; "
            "it is assumed to be the source of the other runs"
        )


def note_unlike_subsets(names: Iterable[str], runs: list[Run]) -> None:
    """Note configurations that are of other subsets than the first: their means differ by the images too.

    Args:
        names: of the configuration of each run.
        runs: the runs.
    """
    found: dict[str, set[int]] = {}
    for name, run in zip(names, runs, strict=True):
        found.setdefault(name, set()).add(subset_seed(run))
    (first, of_first), *others = found.items()
    for name, seeds in others:
        if seeds != of_first:
            note(
                f"{name}: is of the subsets {_listed(seeds)}, but {first} of {_listed(of_first)}; compare "
                "configurations on the same subsets"
            )


def _listed(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _of_store(run: Run) -> dict:
    return run.config["provenance"]["store"]["dataset"]
