"""Batches of one group of services each, for logs of several populations."""

import numpy as np

from clue.data.batches import Batch, Group, Histories, PairSampler
from clue.data.corpus import Corpus
from clue.data.views import ViewsConfig

CYCLE = 100  # batches in which every group has had its share of turns, so to 1 %


class GroupSampler:
    """Draws every batch from the users of one group of services; the groups take turns.

    Batch k is a function of (seed, k, rank, world) alone, as it is for one `PairSampler`.
    """

    def __init__(
        self, corpus: Corpus, views: ViewsConfig, *, batch: int, seed: int, users: int = 0
    ) -> None:
        """Raise ValueError for a service that the corpus lacks, and for a group of too few users
        or too small a share to get a turn.
        """
        histories = Histories(corpus)
        self.samplers: list[PairSampler] = []
        for number, group in enumerate(views.groups):
            missing = [name for name in group.services if name not in corpus.services]
            if missing:
                raise ValueError(
                    f"views.groups has {', '.join(missing)}; {corpus.path} has the services "
                    f"{', '.join(corpus.services)}"
                )
            use = np.isin(corpus.services, group.services)
            own = seed + 1_000_003 * number  # each group shuffles its users by a seed of its own
            try:
                sampler = PairSampler(
                    corpus,
                    views,
                    batch=batch,
                    seed=own,
                    group=Group(histories, use),
                    users=users,
                )
            except ValueError as error:
                raise ValueError(f"group {', '.join(group.services)}: {error}") from None
            self.samplers.append(sampler)
        self.turns = Turns(np.array([group.share for group in views.groups]), seed)

    def check(self, world: int) -> None:
        """Raise ValueError where `world` processes cannot share the batch equally."""
        self.samplers[0].check(world)

    def at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return this process's part of batch `step` (from 0)."""
        group, turn = self.turns.at(step)
        return self.samplers[group].at(turn, rank, world)


class Turns:
    """Who has which step, so that in every CYCLE steps each has its share of them."""

    def __init__(self, shares: np.ndarray, seed: int) -> None:
        """Share the steps of a cycle by largest remainder of `shares` (n,), in shuffled order.

        Raises ValueError for a share too small to get a turn.
        """
        exact = CYCLE * shares / shares.sum()
        self.counts = np.floor(exact).astype(int)
        self.counts[
            np.argsort(self.counts - exact, kind="stable")[: CYCLE - self.counts.sum()]
        ] += 1
        if not self.counts.all():
            raise ValueError(
                f"a group has {shares[self.counts == 0][0]:g} of {shares.sum():g} parts of the "
                f"batches, less than one in {CYCLE}; raise its share or leave it out"
            )
        order = np.repeat(np.arange(len(shares)), self.counts)
        self.order = np.random.default_rng(seed).permutation(order)

    def at(self, step: int) -> tuple[int, int]:
        """Return whose turn step `step` is, and how many turns they had before."""
        cycle, position = divmod(step, CYCLE)
        owner = int(self.order[position])
        before = int((self.order[:position] == owner).sum())
        return owner, cycle * int(self.counts[owner]) + before


def populations(corpus: Corpus, users: np.ndarray) -> list[list[int]]:
    """Return the services of a corpus in sets that share no user of `users`."""
    present = np.stack(
        [corpus.items_of(s).lengths[users] > 0 for s in range(len(corpus.services))]
    ).astype(np.int64)
    linked = present @ present.T > 0
    for _ in range(len(linked)):  # paths of any length
        linked = linked @ linked
    sets = {tuple(np.flatnonzero(row).tolist()) for row in linked if row.any()}
    return [list(services) for services in sorted(sets)]
