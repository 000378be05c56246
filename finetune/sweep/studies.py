"""The paper's ablations by name: `sweep --study h_r` varies what its section or figure varies."""

from store.options import registered

ALGORITHM_1 = "method=fsa"
STUDIES = {  # by name: grids of `sweep`
    "h_r": (
        ALGORITHM_1,
        "head_ratio=0.3,0.5,0.7,0.8,0.9,0.94,0.96,0.985",
    ),  # Fig. 8
    "depth": (
        ALGORITHM_1,
        "fuse_after=none,layer3,layer2",
    ),  # Fig. 9, of a ResNet-18
    "no-aug": ("method=plain,no-aug,fsa",),  # Fig. 9, without its depths
    "thresholds": (
        ALGORITHM_1,
        "tau_s=0.3,0.5,0.7,0.9",
        "tau_g=0.1,0.3,0.5,0.7",
    ),  # which the paper does not state
    "augmented": (
        ALGORITHM_1,
        "augmented_per_sample=1,3,7,15",
        "confusing_classes=1,2,3",
    ),  # N_a and N_f, sec. 5.1
    "gamma": (
        ALGORITHM_1,
        "gamma_max=0.25,0.5,0.75,1",
    ),  # sec. 4.2 draws γ from 0 to 1
}


def grids_of(study: str | None) -> tuple[str, ...]:
    """The grids of a study; none for None.

    Raises:
        UserError: there is no such study.
    """
    return () if study is None else registered("--study", STUDIES, study)
