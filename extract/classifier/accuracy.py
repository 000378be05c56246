"""The accuracy of a fitted classifier, from a store's pooled features."""

from analysis.accuracy import balanced_accuracy
from analysis.chance import is_at_chance
from store.notes import note
from store.reader import FeatureStore


def tell_fitted_accuracy(store: FeatureStore) -> None:
    """Note the accuracy on the test and validation images, and whether it is at chance."""
    weight, bias = store.classifier
    parts, at_chance = [], False
    for split in [name for name in ("test", "val") if name in store.splits]:
        rows = store.read(split)
        predicted = (rows.pooled @ weight.T + bias).argmax(axis=1)
        n_correct = int((predicted == rows.label).sum())
        balanced = balanced_accuracy(rows.label, predicted)
        parts.append(
            f"{100 * n_correct / len(rows.label):.1f} % of {len(rows.label):,} {split} images (class mean "
            f"{balanced:.1f} %)"
        )
        at_chance = at_chance or (split == "test" and is_at_chance(rows.label, predicted))
    note(f"accuracy of the fitted classifier: {'; '.join(parts)}")
    if at_chance:
        note(
            "that is no better than chance: check the weights (--weights), the normalisation (--mean, --std) "
            "and the image size (--image-size) that the network was trained with"
        )
