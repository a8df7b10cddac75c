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
        self.turns = _turns(np.array([group.share for group in views.groups]), seed)

    def check(self, world: int) -> None:
        """Raise ValueError where `world` processes cannot share the batch equally."""
        self.samplers[0].check(world)

    def at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return this process's part of batch `step` (from 0)."""
        cycle, place = divmod(step, CYCLE)
        group = self.turns[place]
        turn = cycle * int((self.turns == group).sum()) + int((self.turns[:place] == group).sum())
        return self.samplers[group].at(turn, rank, world)


def _turns(shares: np.ndarray, seed: int) -> np.ndarray:
    """Return the group of each batch of a cycle (CYCLE,), by largest remainder, shuffled."""
    exact = CYCLE * shares / shares.sum()
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: CYCLE - counts.sum()]] += 1
    if not counts.all():
        raise ValueError(
            f"a group has {shares[counts == 0][0]:g} of {shares.sum():g} parts of the batches, "
            f"less than one in {CYCLE}; raise its share or leave it out"
        )
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(shares)), counts))
