"""Options of `--select-on cv`."""

from typing import Annotated

from store.options import Option

CV = "cv"  # a value of --select-on, and how accuracies on held-out images are named: cv_overall, cv_few, …

Folds = Annotated[
    int,
    Option(
        "parts of the training images for --select-on cv, each held out once; every head is trained once for "
        "each part, and once on all",
        "choosing",
        least=2,
    ),
]
FoldSeed = Annotated[int, Option("random seed of --folds, one for all heads of a sweep", "choosing", least=0)]
