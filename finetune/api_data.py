"""`check_data` of `import tailcache`."""

from typing import Any

import pandas as pd

from extract.audit.report import check_data as run_check
from extract.sources.config import DatasetConfig
from extract.sources.presence import check_images_exist
from finetune.calls import Place, computing
from finetune.commands.failures import as_user_errors
from finetune.keywords import checked_options


@as_user_errors()
def check_data(root: Place | None = None, *, progress: bool = False, **options: Any) -> pd.DataFrame:
    """Read every image that `train` would use, and count what is wrong, as `tailcache train --check-data`.

    Args:
        root: folder of the images; None for a table's folder, or an embedded data set.
        progress: show a bar on stderr.
        options: options of `tailcache train` about data, such as train="labels.csv" or test_fraction=0.2.

    Returns:
        A row for each kind of fault, a column for each split: how many images have it (of "classes without
        images", how many classes), and `examples`, the first few in words. Nothing is wrong if all are 0.

    Raises:
        UserError: the data set cannot be listed, or an option cannot be used.
    """
    named = options | ({} if root is None else {"root": root})
    dataset = DatasetConfig(**checked_options(DatasetConfig, "check_data", named)).resolved()
    check_images_exist(dataset)
    with computing(progress) as bar:
        report = run_check(dataset, bar)
    rows = {fault.kind: fault.counts | {"examples": fault.examples} for fault in report.faults}
    return pd.DataFrame.from_dict(rows, orient="index")
