"""What commands print of results: accuracies, rankings of sweeps and comparisons of runs."""

from typing import Any

from finetune.commands.console import print_table, say, table

RANKED_ON = {
    "val": "the validation split",
    "cv": "held-out folds of the training split",
    "test": "THE TEST SET, which flatters results",
}


def accuracy_cells(after: dict[str, Any], before: dict[str, Any] | None = None) -> list[str]:
    """Accuracies of a summary in words, each after that of Phase I if `before` is given."""
    from analysis.accuracy import in_words, shown_measures

    over = {"overall": " (images)", "balanced_accuracy": " (class mean)"}
    cells = []
    for name in shown_measures(after):
        value = f"{after[name]:.2f}" if before is None else f"{before[name]:.1f} → {after[name]:.1f}"
        cells.append(f"{in_words(name)}{over.get(name, '')} {value}")
    return cells


def print_ranking(found: Any, shot_rule: str, best: int = 10) -> None:
    """Print the best configurations of a sweep or of an analysis of sweeps."""
    from analysis.accuracy import LEGEND
    from analysis.shots import rule_in_words
    from analysis.sweeps import ranking_rows

    print_table(table(*ranking_rows(found.ranking, best)))
    ranked = RANKED_ON[found.select_on]
    say(
        f"accuracy in %, mean ± std over seeds; ranked on {ranked}, by {found.rank_by} accuracy",
        LEGEND,
        f"{rule_in_words(shot_rule)}; {found.head_in_words}",
    )


def print_swept(analysis: Any) -> None:
    """Print the ranking, the files, and the command that runs the best configuration."""
    print_ranking(analysis, analysis.shot_rule)
    for path in analysis.files:
        say(f"  {path}")
    if analysis.command is not None:
        say(
            "a sweep keeps no predictions, so there are no per-class results; to run the best again:",
            f"  {analysis.command}",
        )


def print_analysis(analysis: Any, shot_rule: str) -> None:
    """Print the comparison, with changes from Phase I under each configuration, and the files."""
    from analysis.accuracy import LEGEND
    from analysis.shots import rule_in_words
    from analysis.tables import comparison_table

    say(*comparison_table(analysis.comparison, analysis.n_classes).splitlines())
    say(f"mean ± std over runs, (number of classes); {rule_in_words(shot_rule)}")
    say(LEGEND, analysis.head_in_words)
    print_pairs(analysis)
    for path in analysis.files:
        say(f"  {path}")


def print_pairs(analysis: Any, n: int = 5) -> None:
    """Print the most confused pairs of classes of the first configuration, before and after."""
    from analysis.confusion import pair_lines

    comparison, pairs = analysis.comparison, analysis.pairs
    name = comparison.loc[comparison["phase"] == 2, "configuration"].iloc[0]
    lines = pair_lines(pairs[pairs["configuration"] == name], n)
    if lines:
        say(f"most confused, true → predicted: test images in Phase I → with {name}, mean over runs")
        say(*(f"  {line}" for line in lines))


def contest_table(standings: Any, config: Any) -> Any:
    """The standings of a contest: the accuracy that ranks, the lag behind the first, those on test."""
    from analysis.accuracy import MEASURES, SCORES, in_words, shown_measures
    from analysis.tables import format_cell

    shown = shown_measures({name: standings[f"test_{name}_mean"].max() for name in MEASURES})
    split = config.select_on
    columns = [f"{split}_{SCORES[config.rank_by]}", *(f"test_{name}" for name in shown)]
    titles = [in_words(name) for name in columns]
    rows = []
    for row in standings.to_dict("records"):
        cells = [format_cell(row[f"{name}_mean"], row[f"{name}_std"]) for name in columns]
        low, high = (row[f"{split}_behind_{end}"] for end in ("low", "high"))
        behind = "" if row["rank"] == 1 else f"{row[f'{split}_behind']:.1f} ({low:.1f} to {high:.1f})"
        rows.append([f"{row['entry']}: {row['chosen']}", str(row["n"]), cells[0], behind, *cells[1:]])
    return table(["method: what it chose", "heads", titles[0], "behind", *titles[1:]], rows)


def print_contest(found: Any, config: Any) -> None:
    """Print the standings, who cannot be told apart from the first, and the files."""
    from analysis.accuracy import LEGEND
    from analysis.shots import rule_in_words
    from finetune.contest.average import AVERAGE_OF

    print_table(contest_table(found.table, config))
    over = "seeds" if len(config.store) == 1 else "stores"
    n_images = " + ".join(f"{n:,}" for n in found.n_images)
    which = "images of val" if config.select_on == "val" else "training images, each held out once"
    say(
        f"accuracy in %, mean ± std over {over}; chosen and ranked on {n_images} {which}",
        f"behind: by how much the first is better on {config.select_on}, with a 95 % interval over choices "
        "of the images, those of a group together",
        LEGEND,
        f"{rule_in_words(config.shot_rule)}; {found.head_in_words}",
    )
    together = found.table.loc[found.table["together"], "entry"].tolist()
    if len(together) > 1:
        say(f"{config.select_on} cannot tell {together[0]} from {', '.join(together[1:])}")
    at_edge = found.table.loc[found.table["at_edge"] != "", ["entry", "at_edge"]].itertuples(index=False)
    if at_edge := [f"{entry} ({chosen})" for entry, chosen in at_edge]:
        say(f"at an end of the grid, beyond which it may do better: {', '.join(at_edge)}")
    if (average := found.table.loc[found.table["entry"].str.startswith(AVERAGE_OF), "entry"]).any():
        say(
            f"{average.iloc[0]}: one FC layer, chosen on these images method by method, so its place on "
            f"{config.select_on} flatters it"
        )
    for path in (found.path / "standings.csv", found.path / "heads.csv", *found.best, *found.average):
        say(f"  {path}")
