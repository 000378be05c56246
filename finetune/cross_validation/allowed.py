"""Which stores cross-validation says the truth of: those whose backbone never saw the training images."""

from store.arrays.image_names import image_groups
from store.errors import UserError
from store.reader import FeatureStore

INSTEAD = "choose on validation images (--select-on val; extract with --val-fraction to have some)"


def check_allowed(store: FeatureStore) -> None:
    """Raise UserError for a store whose backbone was trained on its images, or that lacks their groups.

    Features of images that a network was trained on are better than those of new ones, so held-out folds of
    them would flatter every method, and rare classes most.
    """
    made = store.provenance
    if not made.get("classifier"):
        raise UserError(
            f"--select-on cv: {store.path}: its network was trained on these images, so held-out folds of "
            f"them would flatter; {INSTEAD}, or extract with a pre-trained backbone and --classifier fit"
        )
    if made["config"].get("ckpt") is not None:
        raise UserError(
            f"--select-on cv: {store.path}: was extracted with --ckpt, a network trained for these classes, "
            f"so held-out folds of its images would flatter; {INSTEAD}, or, if it never saw them, extract "
            "with --weights in place of --ckpt"
        )
    if n_seen := made["training"].get("images_seen"):
        raise UserError(
            f"--select-on cv: {store.path}: its weights were trained on {n_seen:,} of these images "
            f"({made['network']['weights']}), so held-out folds of them would flatter; {INSTEAD}"
        )
    if lacks_groups(store):
        raise UserError(
            f"--select-on cv: {store.path}: its images come in groups, but an older version extracted it "
            "without recording them; extract again with --overwrite"
        )


def lacks_groups(store: FeatureStore) -> bool:
    """Whether images come in groups, and a version that did not record them extracted the store."""
    data = store.provenance["dataset"]
    grouped = data.get("group_column") is not None or data.get("group_regex") is not None
    return grouped and image_groups(store, "train") is None
