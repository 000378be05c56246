"""Batches with new samples, drawn and computed number by number from docs/run-format.md."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import beta, norm

from finetune.config import FinetuneConfig
from finetune.sampling.philox import KINDS
from store.reader import FeatureStore

CPU = torch.device("cpu")
BATCH, ITERATIONS, K = 16, 12, 10
SAMPLINGS = ("uniform", "balanced", "halves")


def numbers(seed: int, kind: str, iteration: int, n: int) -> np.ndarray:
    """The n numbers of a kind that an iteration takes, by numpy's generator alone."""
    blocks = -(-n // 4)
    raw = np.random.Philox(key=[seed, KINDS[kind]], counter=iteration * blocks).random_raw(4 * blocks)
    return (raw[:n] >> 11) * 2.0**-53


class Reference:
    """One batch after the other, as the documentation says."""

    def __init__(self, config: FinetuneConfig):
        of_method = "uniform" if config.method == "remix" else "balanced"
        self.config, self.sampling = config.resolved(K), config.sampling or of_method
        self.store = FeatureStore(Path(config.store))
        train = self.store.read("train")
        self.label, self.table = train.label, train.pooled
        self.counts = np.bincount(self.label, minlength=K)
        assert (np.diff(self.counts) <= 0).all()
        share = np.cumsum(self.counts) / self.counts.sum()
        self.n_head = int(np.searchsorted(share, self.config.head_ratio)) + 1

    def row_of(self, c: int, u: float) -> int:
        return int(np.flatnonzero(self.label == c)[int(u * self.counts[c])])

    def rows(self, t: int, n_last: int) -> list[int]:
        """The batch's rows; those that may be replaced come last."""
        config, half = self.config, BATCH // 2
        if self.sampling == "uniform":
            return [int(u * len(self.label)) for u in numbers(config.seed, "any row", t, BATCH)]
        if self.sampling == "balanced":
            classes = [int(u * K) for u in numbers(config.seed, "class", t, BATCH)]
            within = numbers(config.seed, "row of class", t, BATCH)
            return [self.row_of(c, u) for c, u in zip(classes, within, strict=True)]
        tail = [self.n_head + int(u * (K - self.n_head)) for u in numbers(config.seed, "tail", t, half)]
        within = numbers(config.seed, "row of tail class", t, half)
        tail = [self.row_of(c, u) for c, u in zip(tail, within, strict=True)]
        of_head = np.flatnonzero(self.label < self.n_head)
        head = [int(of_head[int(u * len(of_head))]) for u in numbers(config.seed, "head row", t, half)]
        n_tail, n_head = n_last // 2, n_last - n_last // 2
        first = tail[: half - n_tail] + head[: half - n_head]
        return first + tail[half - n_tail :] + head[half - n_head :]

    def is_replaced(self, t: int, a: int, n_last: int, c: int) -> bool:
        """Whether a row of a class at a place is."""
        if self.config.mix_classes == "fill":
            lacks = 1 - self.counts[c] / self.counts.max()
            return bool(numbers(self.config.seed, "filled", t, n_last)[a] < lacks)
        return self.config.mix_classes == "all" or c >= self.n_head

    def batch(self, t: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Features and labels of a batch, and how many samples in it are new."""
        n_last = max(1, round(self.config.mix_share * BATCH))
        rows = self.rows(t, n_last)
        features, n_new = self.table[rows].astype(np.float64), 0
        for a, place in enumerate(range(BATCH - n_last, BATCH)):
            if not self.is_replaced(t, a, n_last, self.label[rows[place]]):
                continue
            features[place] = self.new(t, a, n_last, rows, place)
            n_new += 1
        return features, self.label[rows], n_new

    def partner(self, t: int, a: int, n_last: int, rows: list[int]) -> tuple[int, float]:
        """The row that a place is mixed up with, and the share of its own row."""
        config = self.config
        partner = rows[int(numbers(config.seed, "partner place", t, n_last)[a] * BATCH)]
        at = np.arange(4097) / 4096
        quantiles = beta(config.alpha, config.alpha).ppf(at)
        return partner, float(np.interp(numbers(config.seed, "mixup share", t, n_last)[a], at, quantiles))

    def targets(self, t: int) -> np.ndarray:
        """(B, K) shares of classes in the labels of a batch."""
        n_last = max(1, round(self.config.mix_share * BATCH))
        rows = self.rows(t, n_last)
        target = np.eye(K)[self.label[rows]]
        if self.config.method not in ("mixup", "remix"):
            return target
        for a, place in enumerate(range(BATCH - n_last, BATCH)):
            own = self.label[rows[place]]
            if not self.is_replaced(t, a, n_last, own):
                continue
            partner, share = self.partner(t, a, n_last, rows)
            other = self.label[partner]
            if self.config.method == "remix":
                ratio = self.counts[own] / self.counts[other]
                if ratio >= 3 and share < 0.5:
                    share = 0
                elif 1 / ratio >= 3 and share > 0.5:
                    share = 1
            target[place] = share * np.eye(K)[own] + (1 - share) * np.eye(K)[other]
        return target

    def new(self, t: int, a: int, n_last: int, rows: list[int], place: int) -> np.ndarray:
        config, row = self.config, rows[place]
        if config.method in ("mixup", "remix"):
            partner, share = self.partner(t, a, n_last, rows)
            return share * self.table[row] + (1 - share) * self.table[partner]
        if config.method == "tailcalib":
            return self.calibrated(t, a, n_last, row)
        if config.method == "h2t":
            n_channels = self.table.shape[1]
            keys = numbers(config.seed, "order of channels", t, n_channels)
            lent = np.argsort(keys, kind="stable")[: int(config.rho * n_channels)]
            made = self.table[row].astype(np.float64)
            partner = int(numbers(config.seed, "partner row", t, n_last)[a] * len(self.label))
            made[lent] = self.table[partner][lent]
            return made
        maps, cam = self.store.read_feature_map().astype(np.float64), self.store.read_cam().astype(np.float64)
        maps, cam = maps.reshape(len(maps), -1, maps.shape[-1]), cam.reshape(len(cam), -1)
        n_f, n_positions = config.confusing_classes, cam.shape[1]
        keys = numbers(config.seed, "order of confusing classes", t, n_last * n_f).reshape(n_last, n_f)[a]
        lender = self.confusing(self.label[row])[int(np.argsort(keys, kind="stable")[0])]
        donor = self.row_of(lender, numbers(config.seed, "donor row", t, n_last)[a])
        gamma = (
            config.gamma_min
            + (config.gamma_max - config.gamma_min) * numbers(config.seed, "gamma", t, n_last)[a]
        )
        n_specific = min(max(round(gamma * n_positions), 1), n_positions - 1)
        drawn = numbers(config.seed, "vector", t, n_last * n_positions).reshape(n_last, n_positions)[a]
        everywhere = np.arange(n_positions)
        specific, generic = np.flatnonzero(cam[row] > config.tau_s), np.flatnonzero(cam[donor] < config.tau_g)
        sets = (specific if len(specific) else everywhere, generic if len(generic) else everywhere)
        vectors = [
            maps[row][sets[0][int(u * len(sets[0]))]]
            if i < n_specific
            else maps[donor][sets[1][int(u * len(sets[1]))]]
            for i, u in enumerate(drawn)
        ]
        return np.mean(vectors, axis=0)

    def calibrated(self, t: int, a: int, n_last: int, row: int) -> np.ndarray:
        """A sample around a row and its k nearest class means, with a noise vector of each such class."""
        k = self.config.neighbour_classes
        x = self.table[row].astype(np.float64)
        mean = np.stack([self.table[self.label == c].astype(np.float64).mean(0) for c in range(K)])
        nearest = np.argsort(((mean - x) ** 2).sum(1), kind="stable")[:k]
        drawn = numbers(self.config.seed, "noise", t, n_last * k).reshape(n_last, k)[a]
        noise = [self.noise_of(c, int(u * 1024)) for c, u in zip(nearest, drawn, strict=True)]
        return (x + mean[nearest].sum(0)) / (k + 1) + np.sum(noise, axis=0) / np.sqrt(k)

    def noise_of(self, c: int, i: int) -> np.ndarray:
        """A noise vector of a class, of 1,024: the second half has the other sign."""
        rows, config = self.table[self.label == c].astype(np.float64), self.config
        away = (rows - rows.mean(0)) / np.sqrt(len(rows) - 1)
        square, n_channels = np.square(self.table.astype(np.float64)).sum(1).mean(), rows.shape[1]
        root = away if len(rows) <= n_channels else np.linalg.qr(away)[1]
        root = root if config.covariance == "full" else np.diag(rows.std(0, ddof=1))
        n = len(root) + n_channels + 1
        drawn = norm.ppf(numbers(config.seed, "normal", c, 512 * n).reshape(512, n)[i % 512])
        own, each, shared = drawn[: len(root)], drawn[len(root) : -1], drawn[-1]
        if config.covariance == "full":
            made = own @ root + np.sqrt(1e-4 * square) * each + np.sqrt(config.spread * square) * shared
        else:
            made = own @ root + np.sqrt((1e-4 + config.spread) * square) * each
        return made if i < 512 else -made

    def confusing(self, c: int) -> np.ndarray:
        """Classes with the highest mean scores of Phase I for images of a class."""
        weight, bias = (part.astype(np.float64) for part in self.store.classifier)
        logits = self.table[self.label == c].astype(np.float64) @ weight.T + bias
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        mean = (scores / scores.sum(axis=1, keepdims=True)).mean(axis=0)
        mean[c] = -1
        return np.argsort(-mean, kind="stable")[: self.config.confusing_classes]


def asked(store: Path, method: str, sampling: str, **changes: Any) -> FinetuneConfig:
    config = FinetuneConfig(str(store), "run", method, batch_size=BATCH, iterations=ITERATIONS, device="cpu")
    return replace(config, sampling=sampling, eval_every=ITERATIONS, **changes)
