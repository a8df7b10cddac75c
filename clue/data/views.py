"""Which two views of a user a batch contrasts. Pure NumPy: histories in, event indices out.

Every random number is a hash of (seed, step, row, place), so a view depends on nothing but those:
not on the number of processes, not on the other rows, not on what was drawn before.
"""

from dataclasses import dataclass, field

import numpy as np

from clue.data.ragged import Ragged


@dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """Services whose users are each other's negatives; `share` is that of the batches, in parts."""

    services: list[str]  # The services of the group.
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """How the pairs of a batch are made; the three weights are shares of the batch.

    `cross_service`: the same user in two services (CLUE's own pairs). `past_future`: both sides of
    a random cut of one service's history. `slices`: two disjoint random subsets of one history. The
    last two serve users of a single service; on small data they prevent overfitting.
    `short_future` makes the future's length uniform in its logarithm, often a single event, so that
    items on their own are trained to lie near the users who come to them.
    `event_dropout` and `token_dropout` leave out that share of a view's events and a text's tokens.

    `groups`: a batch holds users of one group of services alone, and the groups take turns. For
    logs of several populations: who buys food is told from who watches films at a glance, and such
    negatives teach nothing. A group without users of two services has the other kinds instead.
    """

    cross_service: float = 0.5
    past_future: float = 0.25
    slices: float = 0.25
    max_events: int = 16  # Events of a view, a window of the history.
    short_future: bool = False
    event_dropout: float = 0.0
    token_dropout: float = 0.0
    groups: list[GroupConfig] = field(default_factory=list[GroupConfig])

    def __post_init__(self) -> None:
        """Validate weights, rates and groups."""
        named = [service for group in self.groups for service in group.services]
        if len(set(named)) < len(named) or not all(group.services for group in self.groups):
            raise ValueError(
                f"groups are {[group.services for group in self.groups]}; each has services, and a "
                "service is in one of them"
            )
        if not all(group.share > 0 for group in self.groups):
            raise ValueError(f"shares of groups are {[g.share for g in self.groups]}; all above 0")
        weights = (self.cross_service, self.past_future, self.slices)
        if min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
            raise ValueError(f"the three view weights must be shares that sum to 1, got {weights}")
        if self.max_events < 1:
            raise ValueError(f"max_events must be at least 1, got {self.max_events}")
        for name in ("event_dropout", "token_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")


def uniform(*keys: np.ndarray | int) -> np.ndarray:
    """Return a number in [0, 1) for each (broadcast) tuple of integer keys, by splitmix64 mixing.

    Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    state = np.uint64(0)
    with np.errstate(over="ignore"):
        for key in keys:
            state = _mix(state ^ np.asarray(key).astype(np.uint64))
    return np.asarray((state >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def content_hash(contents: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return an int64 for each segment of its multiset of contents, whatever their order."""
    with np.errstate(over="ignore"):
        mixed = _mix(contents.astype(np.uint64))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
        return (sums[offsets[1:]] - sums[offsets[:-1]]).astype(np.int64)


def cross_service(
    starts: np.ndarray, lengths: np.ndarray, max_events: int, keys: tuple[np.ndarray | int, ...]
) -> Ragged:
    """Return a random window of at most `max_events` of each history, as flat event indices.

    `starts` and `lengths` (R,) place the histories in the service's flat events; `keys` seed row r.
    """
    size = np.minimum(lengths, max_events)
    shift = (uniform(*keys) * (lengths - size + 1)).astype(np.int64)
    return Ragged.slices(starts + shift, size)


def past_future(
    starts: np.ndarray,
    lengths: np.ndarray,
    max_events: int,
    keys: tuple[np.ndarray | int, ...],
    *,
    short: bool = False,
) -> tuple[Ragged, Ragged]:
    """Return what lies just before and just after a random cut of each history of two or more.

    Where `short`, only the first of the future is read, a number uniform in its logarithm.
    """
    cut = 1 + (uniform(*keys, 0) * (lengths - 1)).astype(np.int64)
    before, after = np.minimum(cut, max_events), np.minimum(lengths - cut, max_events)
    if short:
        after = ((after + 1) ** uniform(*keys, 1)).astype(np.int64)
    return Ragged.slices(starts + cut - before, before), Ragged.slices(starts + cut, after)


def slices(
    starts: np.ndarray, lengths: np.ndarray, max_events: int, keys: tuple[np.ndarray | int, ...]
) -> tuple[Ragged, Ragged]:
    """Return two disjoint non-empty random subsets, in order, of a window of each history."""
    window = cross_service(starts, lengths, 2 * max_events, (*keys, 0))
    size = window.lengths
    first = 1 + (uniform(*keys, 1) * (size - 1)).astype(np.int64)
    first = np.clip(first, size - max_events, max_events)
    row = np.repeat(np.arange(len(size)), size)
    position = np.arange(len(row)) - np.repeat(window.offsets[:-1], size)
    seeds = tuple(k if isinstance(k, int) else k[row] for k in keys)
    draw = uniform(*seeds, 2, position)
    order = np.lexsort((draw, row))
    rank = np.empty_like(order)
    rank[order] = position
    in_first = rank < first[row]
    return window.mask(in_first), window.mask(~in_first)


def drop_events(view: Ragged, rate: float, keys: tuple[np.ndarray | int, ...]) -> Ragged:
    """Return each row without a random share `rate` of its values, one of them always kept."""
    if not rate:
        return view
    size = view.lengths
    row = np.repeat(np.arange(len(size)), size)
    position = np.arange(len(row)) - np.repeat(view.offsets[:-1], size)
    seeds = tuple(k if isinstance(k, int) else k[row] for k in keys)
    draw = uniform(*seeds, position)
    best = np.maximum.reduceat(draw, view.offsets[:-1])[row] if len(row) else draw
    return view.mask((draw >= rate) | (draw == best))
