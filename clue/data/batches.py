"""Batches of view pairs: batch k is a function of (seed, k, rank, world) and of nothing else.

The global batch is drawn first and the same for every number of processes; a process then packs its
own rows. Each distinct item is packed once (2-6 times fewer items on Zipf catalogues), shortest
first, and nothing is padded.
"""

from dataclasses import dataclass

import numpy as np

from clue.data.corpus import Corpus, first_users
from clue.data.ragged import Ragged
from clue.data.views import (
    ViewsConfig,
    content_hash,
    cross_service,
    drop_events,
    past_future,
    slices,
    uniform,
)

KINDS = ("cross_service", "past_future", "slices")


@dataclass(frozen=True)
class Batch:
    """B pairs of views of this process, packed.

    `tokens` (T,) of the U distinct items, shortest first, with `token_lengths` (U,) ascending;
    `events` (E,) index them: 2B views, shortest first, with `event_lengths` (2B,) ascending; view a
    of pair i is the sorted view `rows[i]`, view b is `rows[B + i]`. `user`, `content_a` and
    `content_b` (B,) tell which pairs may not be negatives of each other; `log_q` (B,) is the log of
    how many times a batch is expected to hold the pair's user.
    """

    tokens: np.ndarray
    token_lengths: np.ndarray
    events: np.ndarray
    event_lengths: np.ndarray
    rows: np.ndarray
    user: np.ndarray
    content_a: np.ndarray
    content_b: np.ndarray
    log_q: np.ndarray


class Histories:
    """The services' histories as one virtual flat array of events, left on disk.

    `lengths` (S, users) counts each history's events, `starts` (S, users) is its first position.
    """

    def __init__(self, corpus: Corpus) -> None:
        """Read the offsets; the events stay memory-mapped."""
        self.parts = [corpus.items_of(service) for service in range(len(corpus.services))]
        self.shifts = np.cumsum([0, *(len(part.values) for part in self.parts)])
        shifted = zip(self.parts, self.shifts[:-1], strict=True)
        self.starts = np.stack([part.offsets[:-1] + shift for part, shift in shifted])
        self.lengths = np.stack([part.lengths for part in self.parts])

    def items(self, positions: np.ndarray) -> np.ndarray:
        """Return the catalogue item at each flat position."""
        values = np.empty(len(positions), np.int64)
        service = np.searchsorted(self.shifts, positions, side="right") - 1
        for number, part in enumerate(self.parts):
            here = service == number
            values[here] = part.values[positions[here] - self.shifts[number]]
        return values


@dataclass(frozen=True)
class Group:
    """The services (S,) that a sampler draws from, of histories that several samplers share."""

    histories: Histories
    use: np.ndarray


class PairSampler:
    """Draws the batches of a training run from the training users of a corpus."""

    def __init__(
        self,
        corpus: Corpus,
        views: ViewsConfig,
        *,
        batch: int,
        seed: int,
        group: Group | None = None,
        users: int = 0,
    ) -> None:
        """`batch` B is over all processes; with a `group` its services alone are drawn from.

        Of the training users the first `users` are drawn from (`first_users`), all where it is 0.

        Raises ValueError where the corpus has too few users for a share of the batch.
        """
        self.corpus, self.views, self.batch, self.seed = corpus, views, batch, seed
        self.histories = Histories(corpus) if group is None else group.histories
        self.use = np.ones(len(corpus.services), bool) if group is None else group.use
        chosen = first_users(corpus.users_in("train"), users)
        lengths = self.histories.lengths[self.use][:, chosen]
        paired = chosen[(lengths > 0).sum(0) >= 2]
        long = chosen[(lengths >= 2).any(0)]
        self.pools = {"cross_service": paired, "past_future": long, "slices": long}
        self.shares = _shares(views, batch, group is not None and not len(paired))
        for kind, share in self.shares.items():
            if share > len(self.pools[kind]):
                raise ValueError(
                    f"batch {batch} takes {share} {kind} users but the corpus's training split has "
                    f"{len(self.pools[kind])} that fit; lower batch or views.{kind}"
                    + (f", or raise users from {users}" if users else "")
                )
        expected = np.zeros(corpus.num_users)
        for kind, share in self.shares.items():
            expected[self.pools[kind]] += share / max(1, len(self.pools[kind]))
        with np.errstate(divide="ignore"):  # users of no pool are never drawn
            self.log_q = np.log(expected).astype(np.float32)

    def check(self, world: int) -> None:
        """Raise ValueError where `world` processes cannot share the batch equally."""
        if self.batch % world:
            raise ValueError(f"batch {self.batch} is no multiple of {world} processes; change it")

    def at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return this process's part of batch `step` (from 0)."""
        self.check(world)
        share = self.batch // world
        users, kinds = self._draw(step)
        local = slice(rank * share, (rank + 1) * share)
        rows = np.arange(self.batch)[local]
        a, b = self._views(users[local], kinds[local], rows, step)
        rate = self.views.event_dropout
        a = drop_events(a, rate, (self.seed, step, 6, rows))
        b = drop_events(b, rate, (self.seed, step, 7, rows))
        return self._pack(a, b, users[local], step)

    def _draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the user and the kind of each row of the whole batch, in shuffled order.

        Within one pass over a pool no user comes twice; the rest of a pass that fills no share is
        left out, and differs from pass to pass.
        """
        users: list[np.ndarray] = []
        for kind, share in self.shares.items():
            if not share:
                continue
            pool = self.pools[kind]
            epoch, position = divmod(step, len(pool) // share)
            order = np.random.default_rng((self.seed, KINDS.index(kind), epoch)).permutation(pool)
            users.append(order[position * share : (position + 1) * share])
        kinds = np.repeat(np.arange(len(KINDS)), [self.shares[kind] for kind in KINDS])
        shuffle = np.random.default_rng((self.seed, len(KINDS), step)).permutation(self.batch)
        return np.concatenate(users)[shuffle], kinds[shuffle]

    def _views(
        self, users: np.ndarray, kinds: np.ndarray, rows: np.ndarray, step: int
    ) -> tuple[Ragged, Ragged]:
        """Return both views of each row as flat positions in the histories."""
        limit = self.views.max_events
        firsts: list[Ragged] = []
        seconds: list[Ragged] = []
        places: list[np.ndarray] = []
        for number, kind in enumerate(KINDS):
            chosen = np.flatnonzero(kinds == number)
            if not len(chosen):
                continue
            keys = (self.seed, step, number, rows[chosen])
            least = 1 if kind == "cross_service" else 2
            one, other = self._services(users[chosen], least, keys)
            starts, lengths = self._where(one, users[chosen])
            match kind:
                case "past_future":
                    short = self.views.short_future
                    a, b = past_future(starts, lengths, limit, keys, short=short)
                case "slices":
                    a, b = slices(starts, lengths, limit, keys)
                case _:
                    a = cross_service(starts, lengths, limit, (*keys, 3))
                    b = cross_service(*self._where(other, users[chosen]), limit, (*keys, 4))
            firsts.append(a)
            seconds.append(b)
            places.append(chosen)
        back = np.argsort(np.concatenate(places))
        return Ragged.concat(firsts).take(back), Ragged.concat(seconds).take(back)

    def _where(self, services: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.histories.starts[services, users], self.histories.lengths[services, users]

    def _services(
        self, users: np.ndarray, least: int, keys: tuple[np.ndarray | int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return two services for each user, of those with `least` events; distinct if two are."""
        fits = (self.histories.lengths[:, users] >= least) & self.use[:, None]
        service = np.arange(len(fits))[:, None]
        draw = np.where(fits, uniform(*keys, 5, service), -1.0)
        order = np.argsort(-draw, axis=0, kind="stable")
        return order[0], order[min(1, len(order) - 1)]

    def _pack(self, a: Ragged, b: Ragged, users: np.ndarray, step: int) -> Batch:
        views = Ragged.concat([a, b])
        catalogue = self.histories.items(views.values)
        distinct, events = np.unique(catalogue, return_inverse=True)
        texts = self.corpus.item_tokens.take(distinct)
        rate = self.views.token_dropout
        texts = drop_events(texts, rate, (self.seed, step, 8, distinct.astype(np.int64)))
        by_tokens = np.argsort(texts.lengths, kind="stable")
        sorted_place = np.empty_like(by_tokens)
        sorted_place[by_tokens] = np.arange(len(by_tokens))
        by_events = np.argsort(views.lengths, kind="stable")
        rows = np.empty_like(by_events)
        rows[by_events] = np.arange(len(by_events))
        hashes = content_hash(self.corpus.item_content[catalogue], views.offsets)
        return Batch(
            tokens=texts.take(by_tokens).values,
            token_lengths=texts.lengths[by_tokens],
            events=Ragged(sorted_place[events], views.offsets).take(by_events).values,
            event_lengths=views.lengths[by_events],
            rows=rows,
            user=users.astype(np.int64),
            content_a=hashes[: len(users)],
            content_b=hashes[len(users) :],
            log_q=self.log_q[users],
        )


def _shares(views: ViewsConfig, batch: int, unpaired: bool) -> dict[str, int]:
    weights = {kind: getattr(views, kind) for kind in KINDS}
    if unpaired:
        weights["cross_service"] = 0.0
    # Where the weights add up to nothing, no kind is left and the pool says so.
    total = sum(weights.values()) or 1.0
    shares = {kind: round(batch * weight / total) for kind, weight in weights.items()}
    largest = max(shares, key=lambda kind: shares[kind])
    shares[largest] += batch - sum(shares.values())
    return shares
