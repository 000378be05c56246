"""tailcache from Python: the public API, which other programs can rely on.

    import tailcache as tc

    store = tc.open_store("feats.zarr")               # a path, or s3://bucket/name.zarr
    run = tc.finetune(store, method="fsa", seed=0)    # writes no files unless out="runs/fsa" is given
    print(run.per_class)                              # a DataFrame: n_train, accuracy, shot_group, …
    weight, bias = run.head                           # tensors (K, C) and (K,)

    other = tc.finetune(store, method="balanced-softmax", progress=True)
    print(tc.compare([run, other]))                   # the table of `tailcache analyze`, as a DataFrame

Options are those of the commands, with `_` for `-`. An error that the user can fix is a `UserError`, with the
command line's message. See docs/api.md. Nothing heavy is imported before a name is used.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = [  # noqa: F822, because `__getattr__` provides them
    "FeatureStore",
    "Interrupted",
    "Run",
    "UserError",
    "check_data",
    "compare",
    "contest",
    "export",
    "extract",
    "finetune",
    "load_network",
    "open_store",
    "predict",
    "read_run",
    "sweep",
    "train",
]
_HOMES = {"UserError": "store.errors", "Interrupted": "store.errors", "FeatureStore": "store.reader"}
_HOMES |= {"Run": "finetune.run", "predict": "finetune.api_deploy", "export": "finetune.api_deploy"}
_HOMES |= {"check_data": "finetune.api_data", "contest": "finetune.api_contest"}


def __getattr__(name: str) -> Any:
    """A public name, imported on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES.get(name, "finetune.api")), name)
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)


def _check_not_hidden() -> None:
    """Raise ImportError if a file or folder of the user's would be imported instead of a package of ours."""
    here = Path(__file__).resolve().parent
    for name in ("store", "extract", "finetune", "analysis"):
        spec = find_spec(name)
        found = spec.origin or next(iter(spec.submodule_search_locations or ()), "?") if spec else "nothing"
        if Path(found).resolve() != here / name / "__init__.py":
            raise ImportError(
                f"tailcache: its package {name!r} is hidden by {found}; rename that file or folder"
            )


_check_not_hidden()
