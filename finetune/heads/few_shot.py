"""Dynamic few-shot learning without forgetting (FSLwF, Gidaris & Komodakis 2018): weights that are generated.

A cosine classifier has a weight for each head class; that of a rare class is made from its rows x_i, of unit
length: φ_1 ⊙ mean_i x_i + φ_2 ⊙ mean_i Σ_b softmax_b(γ cos(Q x_i + q, key_b)) w_b, over head classes b with
weights of unit length. All of it is learned in episodes, in which head classes play rare ones.
"""

import numpy as np
import torch
from torch.nn.functional import linear, normalize

from extract.heads.kinds import Cosine, Layer
from finetune.heads.differentiated import LearnedHead
from finetune.heads.options import HeadOptions

LOGIT_SCALE, SHARPNESS = 10.0, 10.0  # of the logits and of the attention, to begin with
ROWS_AT_ONCE = 2048


class FewShotHead(LearnedHead):
    """A weight generator; same interface as `StackedHeads` with one head, a `Cosine`."""

    def __init__(self, options: HeadOptions, device: torch.device):
        def on_device(values: np.ndarray) -> torch.Tensor:
            return torch.tensor(values, device=device)

        few = options.few_shot
        n_classes, n_channels = options.weight.shape
        weight = on_device(options.weight[few.head])
        ones, scalar = torch.ones_like(weight[0]), torch.ones_like(weight[0, :1])
        trained = {
            "weight": weight,
            "logit_scale": LOGIT_SCALE * scalar,
            "of_mean": ones,
            "of_attended": ones.clone(),
            "query_weight": torch.eye(n_channels, dtype=weight.dtype, device=device),
            "query_bias": torch.zeros_like(ones),
            "key": weight.clone(),
            "sharpness": SHARPNESS * scalar,
        }
        super().__init__(options, trained)
        self._head, self._episode = on_device(few.head), few.episode
        self._rare, self._rare_label = on_device(few.pooled), on_device(few.label)
        self._place = torch.full((n_classes,), -1, device=device)  # of a class among the head
        self._place[self._head] = torch.arange(len(few.head), device=device)
        self._n_classes = n_classes

    def classified(self, label: torch.Tensor) -> torch.Tensor:
        """The places among the head of the rows that are classified, (T, B′) of labels (T, B)."""
        return self._place[label[:, self._episode.n_support :]]

    def logits(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(B′, K_h) of the rows of an episode that are classified, from x (B, C) and label (B,)."""
        shape, part = self._episode, self.trained
        examples = x[: shape.n_support].view(shape.n_classes, shape.n_shots, -1)
        rare = self._place[label[: shape.n_support : shape.n_shots]]
        is_rare = torch.zeros(len(part["weight"]), dtype=torch.bool, device=x.device)
        is_rare[rare] = True
        generated = self._generated(examples.flatten(0, 1), is_rare)
        generated = generated.view(shape.n_classes, shape.n_shots, -1).mean(dim=1)
        weight = part["weight"].index_copy(0, rare, generated)
        rows = normalize(x[shape.n_support :], dim=1)
        return part["logit_scale"] * linear(rows, normalize(weight, dim=1))

    def _generated(self, rows: torch.Tensor, is_rare: torch.Tensor) -> torch.Tensor:
        """(M, C) what each row (M, C) adds to the weight of its class; no rare class is attended to."""
        part, rows = self.trained, normalize(rows, dim=1)
        asked = normalize(linear(rows, part["query_weight"], part["query_bias"]), dim=1)
        attention = part["sharpness"] * linear(asked, normalize(part["key"], dim=1))
        share = attention.masked_fill(is_rare, -torch.inf).softmax(dim=1)
        attended = share @ normalize(part["weight"], dim=1)
        return part["of_mean"] * rows + part["of_attended"] * attended

    @torch.no_grad()
    def layers(self) -> list[Layer]:
        """The cosine classifier with weights of unit length: those of the head, and generated ones."""
        weight = self.trained["weight"]
        every = weight.new_zeros(self._n_classes, weight.shape[1])
        none_rare = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
        for start in range(0, len(self._rare), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            every.index_add_(0, self._rare_label[part], self._generated(self._rare[part], none_rare))
        every[self._head] = weight  # sums have the direction of means
        return [Cosine(normalize(every, dim=1), self.trained["logit_scale"].clone())]
