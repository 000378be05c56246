"""Algorithm 1 written in the obvious way: the baseline for the speed of Phase II."""

import numpy as np
import torch
from torch.nn.functional import cross_entropy, linear

from finetune.config import FinetuneConfig
from finetune.training.inputs import plan_inputs
from store.reader import FeatureStore


class StraightforwardLoop:
    """One iteration at a time, whole maps, autograd; everything on the device."""

    def __init__(self, store: FeatureStore, config: FinetuneConfig, device: torch.device):
        inputs = plan_inputs(config, store)
        self.device = device
        self.maps = torch.from_numpy(store.read_feature_map()).flatten(1, 2).to(device)  # (N, L, C)
        cam = torch.from_numpy(store.read_cam()).flatten(1).float().to(device)
        self.specific, self.generic = (cam > config.tau_s).float(), (cam < config.tau_g).float()
        for mask in (self.specific, self.generic):
            mask[mask.sum(1) == 0] = 1
        train = store.read("train")
        self.pooled = torch.tensor(train.pooled, device=device)
        self.label = torch.tensor(train.label, dtype=torch.int64, device=device)
        self.tail_rows, self.head_rows = (
            torch.from_numpy(np.flatnonzero(np.isin(train.label, classes))).to(device)
            for classes in (inputs.head_tail.tail, inputs.head_tail.head)
        )
        bounds = np.searchsorted(train.label, np.arange(len(store.class_names) + 1))
        self.bounds = torch.from_numpy(bounds).to(device)
        self.confusing = torch.from_numpy(inputs.confusing).to(device)
        self.head = tuple(torch.tensor(part, device=device) for part in store.classifier)
        for part in self.head:
            part.requires_grad_()
        self.config = config
        self.optimizer = torch.optim.SGD(self.head, lr=config.lr, momentum=config.momentum)
        self.random = torch.Generator(device).manual_seed(0)

    def _uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=self.random, device=self.device)

    def _one_of(self, rows: torch.Tensor, n: int) -> torch.Tensor:
        return rows[torch.randint(len(rows), (n,), generator=self.random, device=self.device)]

    def iteration(self) -> None:
        """One step."""
        n_tail, n_augmented = self.config.n_tail, self.config.augmented_per_sample
        n_positions, g = self.maps.shape[1], self.random
        tail = self._one_of(self.tail_rows, n_tail)
        head = self._one_of(self.head_rows, n_tail * (1 + n_augmented))
        order = self._uniform(n_tail, self.confusing.shape[1]).argsort(1)[:, :n_augmented]
        classes = self.confusing[self.label[tail]].gather(1, order).flatten()
        low, high = self.bounds[classes], self.bounds[classes + 1]
        donor = low + (self._uniform(len(low)) * (high - low)).long()
        row = tail.repeat_interleave(n_augmented)
        n_specific = (self._uniform(len(row)) * n_positions).round().clamp(1, n_positions - 1)
        specific = torch.multinomial(self.specific[row], n_positions, replacement=True, generator=g)
        generic = torch.multinomial(self.generic[donor], n_positions, replacement=True, generator=g)
        of_tail = torch.arange(n_positions, device=self.device) < n_specific[:, None]
        count = torch.zeros(2, len(row), n_positions, device=self.device)
        count[0].scatter_add_(1, specific, of_tail.float())
        count[1].scatter_add_(1, generic, (~of_tail).float())
        augmented = torch.einsum("bl,blc->bc", count[0], self.maps.index_select(0, row).float())
        augmented += torch.einsum("bl,blc->bc", count[1], self.maps.index_select(0, donor).float())
        pooled = torch.cat([self.pooled[torch.cat([tail, head])], augmented / n_positions])
        loss = cross_entropy(linear(pooled, *self.head), self.label[torch.cat([tail, head, row])])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
