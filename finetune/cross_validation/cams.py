"""Class activation maps of every fold's FC layer, from one pass over the stored feature maps."""

import numpy as np
import torch
from rich.progress import Progress

from extract.cam import class_activation_maps
from finetune.loading.residency import MAPS
from store.arrays.finite import first_not_finite
from store.reader import FeatureStore

AT_ONCE = 256  # maps, in float32


class FoldCams:
    """Class activation maps by fold, computed when the first is asked for."""

    def __init__(
        self,
        store: FeatureStore,
        fold: np.ndarray,
        layers: list[tuple[np.ndarray, np.ndarray]],
        device: torch.device,
        progress: Progress,
    ):
        """Keep the inputs; nothing is computed yet.

        Args:
            store: the whole store.
            fold: (N,) the fold of each row.
            layers: weight (K, C) and bias (K,) of each fold.
            device: where to compute.
            progress: shows the rows done.
        """
        self._store, self._fold, self._device, self._progress = store, fold, device, progress
        self._weights = [torch.from_numpy(np.array(weight)).to(device) for weight, _ in layers]
        self._found: list[np.ndarray] | None = None

    def of(self, fold: int) -> np.ndarray:
        """(M, H, W) float16 in [0, 1], of all rows that this fold does not hold out."""
        if self._found is None:
            self._found = self._compute()
        return self._found[fold]

    def _compute(self) -> list[np.ndarray]:
        n_rows, height, width, _ = self._store.map_shape
        label = torch.from_numpy(self._store.read("train").label.astype(np.int64))
        found = [
            np.empty(((self._fold != i).sum(), height, width), np.float16) for i in range(len(self._weights))
        ]
        done = [0] * len(found)
        block = self._store.block_rows(MAPS)  # compressed blocks are decoded whole
        task = self._progress.add_task("class activation maps of folds", total=n_rows, status="")
        for start in range(0, n_rows, block):
            codes = self._store.array(MAPS).read(start, min(start + block, n_rows))
            for first in range(0, len(codes), AT_ONCE):
                rows = slice(start + first, start + min(first + AT_ONCE, len(codes)))
                maps = self._store.decoded(codes[first : first + AT_ONCE], rows.start, np.dtype(np.float32))
                bad = first_not_finite(maps)
                self._store.check_finite_row(MAPS, None if bad is None else rows.start + bad)
                on_device = torch.from_numpy(np.array(maps)).to(self._device)
                for i, weight in enumerate(self._weights):
                    kept = torch.from_numpy(self._fold[rows] != i)
                    cam = class_activation_maps(
                        on_device[kept.to(self._device)], weight, label[rows][kept].to(self._device)
                    )
                    found[i][done[i] : done[i] + len(cam)] = cam.cpu().numpy()
                    done[i] += len(cam)
            self._progress.update(task, completed=min(start + block, n_rows))
        self._progress.remove_task(task)
        return found
