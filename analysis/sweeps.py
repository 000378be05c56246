"""Ranking of a sweep's configurations, and a table of the best for the screen."""

import pandas as pd

from analysis.accuracy import MEASURES, SCORES, in_words, shown_measures
from analysis.tables import format_cell

SPLITS = ("val", "cv", "test")


def rank_configurations(results: pd.DataFrame, select_on: str, rank_by: str) -> pd.DataFrame:
    """Means over seeds, best first by an accuracy on a split.

    Args:
        results: one row per head: configuration, seed, and accuracies such as val_overall; NaN if diverged.
        select_on: split to rank by.
        rank_by: accuracy to rank by, a key of SCORES.

    Returns:
        One row per configuration: rank, select_on, rank_by, configuration, n (heads), diverged (how many of
        them), and mean and standard deviation (NaN for one head) of every accuracy. Configurations with a
        diverged head come last.
    """
    columns = [f"{split}_{measure}" for split in SPLITS for measure in MEASURES]
    by_name = results.groupby("configuration", sort=False)
    ranking = pd.DataFrame({"n": by_name.size(), "diverged": by_name["diverged_at"].count()})
    for column in columns:
        if column in results:
            ranking[f"{column}_mean"] = by_name[column].mean()
            ranking[f"{column}_std"] = by_name[column].std(ddof=1)
    ranking["seconds"] = by_name["seconds"].mean()
    score = f"{select_on}_{SCORES[rank_by]}_mean"
    if score not in ranking:  # every head diverged
        ranking[score] = float("nan")
    order = ranking.assign(whole=ranking["diverged"] == 0).sort_values(
        ["whole", score], ascending=False, kind="stable"
    )
    ranking = ranking.loc[order.index].reset_index()
    for place, (name, values) in enumerate(
        {"rank": range(1, len(ranking) + 1), "select_on": select_on, "rank_by": rank_by}.items()
    ):
        ranking.insert(place, name, values)
    return ranking


def ranking_rows(ranking: pd.DataFrame, n: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the best n configurations, for the screen.

    The accuracy that ranks comes first, then those on test.
    """
    shown = _shown_columns(ranking)
    header = ["", "configuration", "heads", *map(in_words, shown)]
    rows = []
    for row in ranking.head(n).to_dict("records"):
        cells = [
            format_cell(row.get(f"{c}_mean", float("nan")), row.get(f"{c}_std", float("nan"))) for c in shown
        ]
        heads = f"{row['n']}" if not row["diverged"] else f"{row['n']}, {row['diverged']} diverged"
        rows.append([str(row["rank"]), row["configuration"], heads, *cells])
    return header, rows


def _shown_columns(ranking: pd.DataFrame) -> list[str]:
    score = f"{ranking['select_on'][0]}_{SCORES[ranking['rank_by'][0]]}"
    best = {measure: ranking[c].max() for measure in MEASURES if (c := f"test_{measure}_mean") in ranking}
    return list(dict.fromkeys([score, *(f"test_{measure}" for measure in shown_measures(best))]))
