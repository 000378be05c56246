"""Many, Medium and Few: groups of classes by training count. Conventions differ, so rules have names."""

import numpy as np

GROUPS = ("many", "medium", "few")

# (fewest images of a class in Many, most images of a class in Few)
SHOT_RULES = {
    "decoupling": (101, 19),  # > 100 / 20..100 / < 20: Kang et al. 2020, and OLTR before August 2019
    "oltr": (100, 20),  # >= 100 / 21..99 / <= 20: OLTR's repository today
}
MOST = 2**32  # bound of a threshold; no class has so many images


def shot_groups(class_counts: np.ndarray, rule: str) -> np.ndarray:
    """The group of every class.

    Args:
        class_counts: (K,) training images of each class.
        rule: a name in SHOT_RULES, or thresholds such as "200,50".

    Returns:
        (K,) array of "many", "medium" or "few".
    """
    at_least, at_most = bounds(rule)
    return np.select([class_counts >= at_least, class_counts <= at_most], ["many", "few"], "medium")


def bounds(rule: str) -> tuple[int, int]:
    """The smallest count of a class in Many, and the largest of one in Few.

    Args:
        rule: a name in SHOT_RULES, or thresholds: "200,50" is Many above 200, Few below 50, Medium between.

    Raises:
        ValueError: it is neither; the message says what is expected.
    """
    if rule in SHOT_RULES:
        return SHOT_RULES[rule]
    parts = [part.strip() for part in rule.split(",")]
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        names = ", ".join(SHOT_RULES)
        raise ValueError(
            f"expected {names}, or two whole numbers such as 200,50 (Many above 200, Few below 50)"
        )
    many, few = map(int, parts)
    if not 1 <= few <= many < MOST:
        raise ValueError(
            "expected the threshold of Many (above it), then that of Few (below it), from 1 to below 2^32, "
            "the first not smaller than the second"
        )
    return many + 1, few - 1


def rule_in_words(rule: str) -> str:
    """A rule with its meaning: "shot rule decoupling: Many > 100, Few < 20 training images"."""
    at_least, at_most = bounds(rule)
    if rule == "oltr":
        return f"shot rule {rule}: Many ≥ {at_least}, Few ≤ {at_most} training images"
    return f"shot rule {rule}: Many > {at_least - 1}, Few < {at_most + 1} training images"
