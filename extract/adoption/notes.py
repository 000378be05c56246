"""What is said of a network that another program trained: its order of classes, and how images reach it."""

from extract.adoption.class_lists import in_words as names_in_words
from extract.adoption.options import takes_classifier
from extract.config import ExtractConfig, NetworkConfig
from extract.data_notes import note_data, note_left_out
from extract.dataset import Dataset
from extract.images.preparation import IN_MEMORY_SIZE
from extract.images.transforms import Transform, evaluation_resize
from extract.sources.registry import find_source
from extract.training.preparation import in_words, whose_statistics
from store.notes import note


def note_adopted(
    dataset: Dataset, transform: Transform, network: NetworkConfig, config: ExtractConfig
) -> None:
    """Note what was assumed, for nothing in another program's file says it."""
    note_data(dataset, with_mirroring=config.views > 1)
    note_left_out(dataset.config.skipped, "the store's provenance lists")
    if takes_classifier(config):
        _note_order(dataset)
    if config.classifier == "fresh":
        note(
            "--classifier fresh: class activation maps of an FC layer that was not trained do not show where "
            "a class is, and fsa goes by them; `fit` is the better choice"
        )
    _note_preparation(transform, network, config)


def _note_order(dataset: Dataset) -> None:
    config = dataset.config
    source = "the data set's own order"
    if config.class_names is not None:
        source = config.class_names
    elif config.class_order is not None:
        source = "the checkpoint's own list"
    names = names_in_words(dataset.class_names, 5)
    other = (
        "; --class-names FILE names another" if "class_names" in find_source(config.source).options else ""
    )
    note(f"outputs of the FC layer are taken to be {names} ({source}{other})")


def _note_preparation(transform: Transform, network: NetworkConfig, config: ExtractConfig) -> None:
    options = ["--image-size"]
    words = f"{transform.image_size} pixels"
    if transform.image_size > IN_MEMORY_SIZE:
        shorter, how = evaluation_resize(transform)
        words = f"{transform.image_size} of {shorter} pixels, {how}"
        options += ["--crop", "--interpolation"]
    mean, std = in_words(transform)
    whose = whose_statistics(transform, config, network)
    options = ", ".join([*options, "--mean"])
    note(
        f"images reach the network as {words}, less mean {mean}, by standard deviation {std} ({whose}); "
        f"{options} and --std change that, and must be those it was trained with"
    )
