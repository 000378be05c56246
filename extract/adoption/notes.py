"""What is said of a network that another program trained: its order of classes, and how images reach it."""

from extract.adoption.class_lists import in_words
from extract.checkpoints.restore import Restored
from extract.config import ExtractConfig
from extract.data_notes import note_data
from extract.images.preparation import IN_MEMORY_SIZE
from extract.images.transforms import Transform, evaluation_resize
from store.notes import note


def note_adopted(restored: Restored, config: ExtractConfig) -> None:
    """Note what was assumed, for nothing in the file of another program says it."""
    note_data(restored.dataset, with_mirroring=config.views > 1)
    if config.classifier == "fresh":
        note(
            "--classifier fresh: class activation maps of an FC layer that was not trained say nothing of "
            "where a class is; `fit` is the better choice"
        )
    else:
        _note_order(restored)
    note(f"images as the network sees them: {_in_words(restored.transform)}; {_options(restored.transform)}")


def _note_order(restored: Restored) -> None:
    config = restored.dataset.config
    source = "the names of classes, sorted"
    if config.class_names is not None:
        source = config.class_names
    elif config.class_order is not None:
        source = "the checkpoint's own list"
    names = in_words(restored.dataset.class_names, 5)
    note(f"order of classes: that of {source} ({names}); --class-names FILE names another")


def _in_words(transform: Transform) -> str:
    size = transform.image_size
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (transform.mean, transform.std))
    if size <= IN_MEMORY_SIZE:
        return f"{size} pixels, mean {mean}, std {std}"
    shorter, how = evaluation_resize(transform)
    return f"{size} of {shorter} pixels, {how}, mean {mean}, std {std}"


def _options(transform: Transform) -> str:
    names = "--image-size, --mean and --std"
    if transform.image_size > IN_MEMORY_SIZE:
        names = "--image-size, --crop, --interpolation, --mean and --std"
    return f"{names} say otherwise"
