"""A rival of every task: a next-event transformer whose history tokens sum up what came before.

HT-Transformer (Karpukhin and Savchenko 2025, arXiv 2508.01474) in our own words. A causal
transformer predicts the next item after each event. In a share of the batches history tokens stand
between the events: one reads all events before its place and no other token, and an event after it
reads that token and the events since, so that whatever came before must pass through the token's
state. The vector of a user is the state of a token after their last event.

One model for all services learns from the training users' histories of each, items by their id. A
user of several services has the mean of the states. Where a token stands in the sequence is said by
its position and its mask alone; so the tokens are appended, which is the same.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.external.coles import known
from benchmarks.protocols import one_block
from benchmarks.snapshot import Snapshot
from clue.data.corpus import Corpus
from clue.data.ragged import Ragged

CHUNK = 32_768  # events alive at once where users are read
UNKNOWN = 0.02  # share of the events read in training as an item that nobody knows


@dataclass(frozen=True, kw_only=True)
class HistoryTokensConfig:
    """The rival's setting; training ends with the batch that passes `minutes` of processor time.

    A batch are windows of `events` at most of `batch` histories of one service; in the share
    `token_batches` of them one event in `spacing` is followed by a history token, at places drawn
    anew. A target is told from `negatives` items drawn from the service's events. A model for each
    of `seeds`.
    """

    minutes: float = 20.0
    width: int = 96  # Width of the model and of the user's vector.
    layers: int = 2  # Blocks over a window.
    heads: int = 2  # Heads of attention in a layer; they divide the width.
    dropout: float = 0.2  # Share of activations dropped in training.
    events: int = 50
    batch: int = 128
    negatives: int = 512
    rate: float = 1e-3  # Adam's learning rate.
    token_batches: float = 0.5
    spacing: int = 10
    seeds: list[int] = field(default_factory=lambda: [0])
    work: Path = Path("runs/history_tokens")  # Where its model and vectors are kept.

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.minutes <= 0 or not 0 < self.token_batches <= 1:
            raise ValueError(
                f"minutes {self.minutes}, token_batches {self.token_batches}: give more than 0 "
                "minutes and a share in (0, 1]"
            )


def token_mask(events: int, places: Tensor) -> Tensor:
    """Return what each of `events` L and then of R tokens reads, boolean (L + R, L + R).

    `places` (R,) ascending are how many events stand before each token.
    """
    at = torch.arange(events)
    newest = torch.searchsorted(places, at, right=True)  # tokens at or before each event
    since = torch.cat([torch.zeros(1, dtype=torch.long), places])[newest]
    mask = torch.zeros(events + len(places), events + len(places), dtype=torch.bool)
    mask[:events, :events] = (at <= at[:, None]) & (at >= since[:, None])
    mask[:events, events:] = torch.arange(len(places)) == newest[:, None] - 1
    mask[events:, :events] = at < places[:, None]
    mask[events:, events:] = torch.eye(len(places), dtype=torch.bool)
    return mask


class HistoryTokenEncoder(nn.Module):
    """Items by id and positions, pre-norm blocks under a mask, a norm; the last row is any item."""

    def __init__(self, config: HistoryTokensConfig, items: int) -> None:
        """Of `items` V, which row V stands for where an item is unknown."""
        super().__init__()
        width = config.width
        self.item = nn.Embedding(items + 1, width, sparse=True)
        self.token = nn.Parameter(torch.randn(width) * 0.02)
        self.position = nn.Embedding(config.events + 1, width)
        self.heads = config.heads
        layer = nn.TransformerEncoderLayer(
            *(width, config.heads, 4 * width, config.dropout, "gelu"),
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        for table in (self.item, self.position):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, items: Tensor, places: Tensor) -> Tensor:
        """Return the states (B, L + R, D) of events (B, L), oldest first, and of R tokens."""
        batch, length = items.shape
        events = self.item(items) + self.position(torch.arange(length))
        tokens = (self.token + self.position(places)).expand(batch, -1, -1)
        hidden = ~token_mask(length, places)
        return self.norm(self.layers(torch.cat([events, tokens], dim=1), mask=hidden))


def windows(histories: Ragged, rows: np.ndarray, events: int, rng: np.random.Generator) -> Tensor:
    """Return events and the target after them (rows, events + 1), -1 after the end of each.

    Of a longer history a random stretch is read.
    """
    spare = np.maximum(histories.lengths[rows] - events - 1, 0)
    starts = histories.offsets[rows] + rng.integers(0, spare + 1)
    lengths = np.minimum(histories.lengths[rows], events + 1)
    position = np.arange(lengths.max())
    inside = position < lengths[:, None]
    index = np.where(inside, starts[:, None] + position, 0)
    return torch.from_numpy(np.where(inside, histories.values[index], -1).astype(np.int64))


def loss_of(
    model: HistoryTokenEncoder, batch: Tensor, negatives: Tensor, places: Tensor, log_q: Tensor
) -> Tensor:
    """Return the mean softmax loss of each next item among itself and the drawn `negatives` (K,).

    `log_q` (V,) is the logarithm of how often an item is expected among them, which its score as a
    negative is corrected by; a negative that is the target does not count.
    """
    read, target = batch[:, :-1], batch[:, 1:]
    has_target = target >= 0
    known = (read >= 0) & (torch.rand(read.shape) >= UNKNOWN)
    read = read.where(known, torch.tensor(model.item.num_embeddings - 1))
    states = model(read, places)[:, : read.shape[1]][has_target]
    target = target[has_target]
    right = (states * model.item(target)).sum(1) - log_q[target]
    wrong = states @ model.item(negatives).T - log_q[negatives]
    wrong = wrong.masked_fill(negatives == target[:, None], float("-inf"))
    scores = torch.cat([right[:, None], wrong], dim=1)
    return functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))


def train(
    config: HistoryTokensConfig, services: list[Ragged], items: int, seed: int
) -> HistoryTokenEncoder:
    """Return a model of `items` V, trained on the histories of each service, rows of the items."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = HistoryTokenEncoder(config, items).train()
    dense = [w for name, w in model.named_parameters() if name != "item.weight"]
    optimisers = [
        torch.optim.SparseAdam([model.item.weight], lr=config.rate),
        torch.optim.Adam(dense, lr=config.rate),
    ]
    rows = [np.flatnonzero(each.lengths > 1) for each in services]
    share = np.array([each.lengths[of].sum() for each, of in zip(services, rows, strict=True)])
    counts = np.bincount(np.concatenate([each.values for each in services]), minlength=items)
    began = time.process_time()
    while time.process_time() - began < 60 * config.minutes:
        service = int(rng.choice(len(services), p=share / share.sum()))
        values = services[service].values
        batch = windows(
            services[service], rng.choice(rows[service], config.batch), config.events, rng
        )
        length = batch.shape[1] - 1
        many = max(1, length // config.spacing) if rng.random() < config.token_batches else 0
        places = 1 + torch.from_numpy(np.sort(rng.permutation(length)[:many]))
        negatives = torch.from_numpy(rng.choice(values, config.negatives).astype(np.int64))
        expected = config.negatives * counts / max(len(values), 1)
        log_q = torch.from_numpy(np.log(np.maximum(expected, 1e-12))).float()
        loss = loss_of(model, batch, negatives, places, log_q)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
    return model.eval()


def states_of(model: HistoryTokenEncoder, histories: Ragged, events: int) -> np.ndarray:
    """Return the state (n, D) of a token after each history's newest `events`, zero without any."""
    newest = histories.last(events)
    made = np.zeros((len(newest), model.token.shape[0]), np.float32)
    with torch.inference_mode():
        for length in np.unique(newest.lengths[newest.lengths > 0]):
            rows = np.flatnonzero(newest.lengths == length)
            for some in np.split(rows, range(0, len(rows), max(1, CHUNK // int(length))))[1:]:
                items = newest.take(some).values.reshape(len(some), int(length))
                states = model(torch.from_numpy(items.astype(np.int64)), torch.tensor([length]))
                made[some] = states[:, -1].numpy()
    return made


class HistoryTokens:
    """HT-Transformer, trained where `work` does not hold it yet."""

    name, similarity = "HT-Transformer", slice(None)

    def __init__(
        self, config: HistoryTokensConfig, learn: Corpus, corpus: Corpus, *, seed: int
    ) -> None:
        """Learn from the training users of `learn`, read pasts of `corpus`."""
        self.config, self.learn, self.seed = config, learn, seed
        self._known, _ = known(learn, corpus)
        spec: dict[str, Any] = {**asdict(config), "seed": seed, "learn": learn.fingerprint}
        del spec["work"], spec["seeds"]
        spec_json = json.dumps(spec, sort_keys=True)
        self.work = config.work / hashlib.sha256(spec_json.encode()).hexdigest()[:12]
        self.fingerprint = f"history-tokens-{self.work.name}-{corpus.fingerprint}"

    @cached_property
    def _model(self) -> HistoryTokenEncoder:
        learn, file = self.learn, self.work / "model.pt"
        if not file.is_file():
            users = learn.users_in("train")
            services = [learn.items_of(number).take(users) for number in range(len(learn.services))]
            model = train(self.config, services, learn.num_items, self.seed)
            self.work.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".partial")
            torch.save(model.state_dict(), partial)
            partial.replace(file)
        model = HistoryTokenEncoder(self.config, learn.num_items)
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()

    @property
    def blocks(self) -> Mapping[str, slice]:
        """One, the whole vector."""
        return one_block(self.config.width)

    def users(self, past: Snapshot) -> np.ndarray:
        """Return the mean (n, width) over a user's services of the states of a token at the end."""
        total, services = np.zeros((len(past), self.config.width), np.float32), np.zeros(len(past))
        for items, _ in past.parts:
            rows = self._known[items.values]
            rows = np.where(rows < 0, self.learn.num_items, rows)
            total += states_of(self._model, Ragged(rows, items.offsets), self.config.events)
            services += items.lengths > 0
        return total / np.maximum(services, 1)[:, None].astype(np.float32)

    def items(self) -> np.ndarray:
        """Return the vectors (num_items, width) that the states predict, zero of unknown items."""
        table = self._model.item.weight.detach().numpy()
        return np.where(self._known[:, None] >= 0, table[self._known], 0).astype(np.float32)
