"""Many, Medium and Few: groups of classes by training count. Conventions differ, so the rule is named."""

import numpy as np

GROUPS = ("many", "medium", "few")

# (Many holds classes of at least this many images, Few those of at most this many)
SHOT_RULES = {
    "decoupling": (101, 19),  # > 100 / 20..100 / < 20: Kang et al. 2020, and OLTR before August 2019
    "oltr": (100, 20),  # >= 100 / 21..99 / <= 20: OLTR's repository today
}


def shot_groups(class_counts: np.ndarray, rule: str) -> np.ndarray:
    """The group of every class.

    Args:
        class_counts: (K,) training images of each class.
        rule: a name in SHOT_RULES.

    Returns:
        (K,) array of "many", "medium" or "few".
    """
    at_least, at_most = SHOT_RULES[rule]
    return np.select([class_counts >= at_least, class_counts <= at_most], ["many", "few"], "medium")
