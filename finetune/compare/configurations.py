"""What makes runs seeds of one configuration: the options of all three phases, but for the seeds."""

from typing import Any

from finetune.methods.options import named_options
from finetune.run import Run

OF_DATA = ("dataset", "imbalance_factor", "val_per_class")
OF_NETWORK = ("arch", "width", "weights")
OF_IMAGES = {"flip": None, "upright": False, "white": None}  # and what an earlier program's store stands for


def phase1_options(run: Run) -> dict[str, Any]:
    """The options that make the configuration of a run's Phase I: data, network, training, images."""
    made = run.config["provenance"]["store"]
    data = {name: made["dataset"][name] for name in OF_DATA}
    data["no_flip"] = made["dataset"].get("no_flip", False)  # version 0.1 mirrored all but digits
    network = {name: made["network"][name] for name in OF_NETWORK}
    prepared = {name: made.get("transform", {}).get(name, earlier) for name, earlier in OF_IMAGES.items()}
    return data | network | {f"phase1_{name}": value for name, value in (made["training"] | prepared).items()}


def all_options(run: Run) -> dict[str, Any]:
    """The options that make a run's configuration: those of all three phases."""
    own = named_options(run.config)
    if own.pop("select_on", None) == "test":
        own["method"] += " (chosen on test)"
    made = run.config["provenance"]["store"]
    extraction = {f"extract_{name}": made["config"][name] for name in ("dtype", "precision")}
    extraction["extract_views"] = made["config"].get("views", 1)  # earlier stores do not say
    for conversion in made.get("converted", []):  # the last says what the run read
        extraction["extract_dtype"] = conversion["dtype"]
    return own | phase1_options(run) | extraction
