"""A sweep's results: configurations ranked, and a table of the best for the screen."""

import pandas as pd

from analysis.tables import format_cell

GROUPS = ("overall", "many", "medium", "few")
COLUMNS = (*GROUPS, "head", "tail")


def rank_configurations(results: pd.DataFrame, select_on: str) -> pd.DataFrame:
    """Means over seeds, best first by the overall accuracy on a split.

    Args:
        results: a row a head: configuration, seed, and accuracies such as val_overall; NaN where it diverged.
        select_on: the split to rank by.

    Returns:
        A row a configuration: rank, select_on, configuration, n (heads), diverged (of them), and for every
        accuracy its mean and standard deviation (NaN for one head). A configuration any head of which
        diverged comes last.
    """
    columns = [c for c in results if c.split("_")[0] in ("val", "test") and c.split("_")[-1] in COLUMNS]
    by_name = results.groupby("configuration", sort=False)
    ranking = pd.DataFrame({"n": by_name.size(), "diverged": by_name["diverged_at"].count()})
    for column in columns:
        ranking[f"{column}_mean"] = by_name[column].mean()
        ranking[f"{column}_std"] = by_name[column].std(ddof=1)
    ranking["seconds"] = by_name["seconds"].mean()
    score = f"{select_on}_overall_mean"
    if score not in ranking:  # every head diverged
        ranking[score] = float("nan")
    order = ranking.assign(whole=ranking["diverged"] == 0).sort_values(
        ["whole", score], ascending=False, kind="stable"
    )
    ranking = ranking.loc[order.index].reset_index()
    ranking.insert(0, "rank", range(1, len(ranking) + 1))
    ranking.insert(1, "select_on", select_on)
    return ranking


def ranking_rows(ranking: pd.DataFrame, select_on: str, n: int) -> tuple[list[str], list[list[str]]]:
    """The header and the best n configurations as cells for the screen."""
    other = "test" if select_on == "val" else "val"
    shown = [f"{select_on}_overall", *(f"{other}_{g}" for g in GROUPS if f"{other}_{g}_mean" in ranking)]
    if select_on == "test":
        shown = [f"test_{group}" for group in GROUPS]
    header = ["", "configuration", "heads", *(column.replace("_", " ") for column in shown)]
    rows = []
    for row in ranking.head(n).to_dict("records"):
        cells = [
            format_cell(row.get(f"{c}_mean", float("nan")), row.get(f"{c}_std", float("nan"))) for c in shown
        ]
        heads = f"{row['n']}" if not row["diverged"] else f"{row['n']}, {row['diverged']} diverged"
        rows.append([str(row["rank"]), row["configuration"], heads, *cells])
    return header, rows
