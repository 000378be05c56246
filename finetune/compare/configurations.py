"""The configuration of a run: options of training, extraction and fine-tuning, without the seeds."""

from pathlib import Path
from typing import Any

from extract.training.recorded import defaults
from finetune.methods.options import named_options
from finetune.run import Run

DATA_OPTIONS = ("dataset", "imbalance_factor", "val_per_class")
LATER_OPTIONS = ("val_fraction", "test_fraction", "group_column", "group_regex")  # older stores have none
NETWORK_OPTIONS = ("arch", "width", "weights")
PREPARATION_OPTIONS = ("mean", "std", "crop", "interpolation")  # None in stores of older versions
IMAGE_OPTIONS = {"flip": None, "upright": False, "white": None}  # with values for stores of older versions


def phase1_options(run: Run) -> dict[str, Any]:
    """Options of a run's Phase I: data, network, training, images."""
    made = run.config["provenance"]["store"]
    data = {name: made["dataset"][name] for name in DATA_OPTIONS}
    data |= {name: made["dataset"].get(name) for name in LATER_OPTIONS}
    data["no_flip"] = made["dataset"].get("no_flip", False)  # version 0.1 mirrored all but digits
    network = {name: made["network"][name] for name in NETWORK_OPTIONS}
    if (digest := made["network"].get("weights_digest")) is not None:  # a file is known by what it holds
        network["weights"] = f"{Path(network['weights']).name} ({digest[:8]})"
    network["ema"] = made["network"].get("ema", False)
    network["arch_option"] = made["network"].get("arch_option", ())  # older versions have none
    training = dict.fromkeys(PREPARATION_OPTIONS) | defaults() | made["training"]
    if training.get("classifier") == "fit":  # None: it was chosen
        training["weight_decay"] = made["config"].get("weight_decay")
    prepared = {name: made.get("transform", {}).get(name, earlier) for name, earlier in IMAGE_OPTIONS.items()}
    return data | network | {f"phase1_{name}": value for name, value in (training | prepared).items()}


def all_options(run: Run) -> dict[str, Any]:
    """Options of a run's configuration, over training, extraction and fine-tuning."""
    own = _averaged(run.config["average"]) if "average" in run.config else named_options(run.config)
    chosen_on = own.pop("select_on", None)
    if chosen_on == "test":
        own["method"] += " (chosen on test)"
    elif chosen_on == "cv":
        own["select_on"] = chosen_on
    made = run.config["provenance"]["store"]
    extraction = {f"extract_{name}": made["config"][name] for name in ("dtype", "precision")}
    extraction["extract_views"] = made["config"].get("views", 1)  # older stores do not record it
    for conversion in made.get("converted", []):  # the run read the last one
        extraction["extract_dtype"] = conversion["dtype"]
    return own | phase1_options(run) | extraction


def _averaged(ingredients: list[dict[str, Any]]) -> dict[str, Any]:
    """The heads that an average is made of, as its options."""
    names = ", ".join(one["entry"] for one in ingredients)
    made_of = "; ".join(f"{one['entry']}: {one['options']}" for one in ingredients)
    return {"method": f"average of {len(ingredients)}: {names}", "ingredients": made_of}
