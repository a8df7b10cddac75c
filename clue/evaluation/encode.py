"""Items and histories through a trained model, in chunks of bounded memory, without gradients."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from clue.data.ragged import Ragged
from clue.nn.decoder import NextItemDecoder
from clue.nn.dual_encoder import DualEncoder
from clue.nn.layout import Layout, ranges
from clue.nn.predictive import PredictiveEncoder

T = TypeVar("T")
CHUNK = 65_536  # tokens or events alive at once: about 0.3 GiB at width 256


def item_vectors(model: DualEncoder, texts: Ragged) -> torch.Tensor:
    """Return the item vector (n, D) of each row of token ids, fp32 on the CPU."""
    return _by_length(texts, model.config.item.width, model, model.items)


def user_vectors(model: DualEncoder, items: torch.Tensor, histories: Ragged) -> torch.Tensor:
    """Return the unit vector (n, E) of each history, rows of which index `items` (any, D).

    An empty history has the zero vector: it matches nobody.
    """

    def encode(events: torch.Tensor, layout: Layout) -> torch.Tensor:
        return model.users(items[events.cpu()].to(events.device), layout)

    return _by_length(histories, model.config.user.embedding, model, encode)


def entered_items(model: DualEncoder, texts: Ragged) -> torch.Tensor:
    """Return what the user encoder reads of each row of token ids, (n, W), fp32 on the CPU.

    A quarter of its work depends on the item alone, and is done here once an item.
    """
    config = model.config.user

    def encode(tokens: torch.Tensor, layout: Layout) -> torch.Tensor:
        x, each = model.users.entered(model.items(tokens, layout))
        return x.float() if each is None else torch.cat([x.float(), each], dim=1)

    return _by_length(texts, config.width + config.bag, model, encode)


def entered_users(model: DualEncoder, items: torch.Tensor, histories: Ragged) -> torch.Tensor:
    """Return `user_vectors` of histories whose rows index `items`, as `entered_items` has them."""
    config = model.config.user

    def encode(events: torch.Tensor, layout: Layout) -> torch.Tensor:
        x, each = items[events.cpu()].to(events.device).split([config.width, config.bag], dim=1)
        return model.users.read(x, each if config.bag else None, layout)

    return _by_length(histories, config.embedding, model, encode)


def history_vectors(model: DualEncoder, item_tokens: Ragged, histories: Ragged) -> np.ndarray:
    """Return the unit vector (n, E) of each row of catalogue items, encoding only those they hold.

    `item_tokens` are the whole catalogue's.
    """
    distinct, events = np.unique(histories.values, return_inverse=True)
    items = item_vectors(model, item_tokens.take(distinct))
    return user_vectors(model, items, Ragged(events, histories.offsets)).numpy()


def last_states(model: NextItemDecoder, histories: Ragged) -> torch.Tensor:
    """Return the state (n, D) after the last of each history's catalogue rows.

    Of a history the newest `max_events` are read; that of an empty one is zero.
    """
    cut = histories.last(model.config.max_events)
    return _by_length(cut, model.config.width, model, model.decoder.last)


def predictive_items(model: PredictiveEncoder, texts: Ragged, rows: np.ndarray) -> torch.Tensor:
    """Return the vectors (n, D) of rows of token ids with identities `rows` (n,), -1 for none."""

    def encode(tokens: torch.Tensor, layout: Layout) -> torch.Tensor:
        return model.enter(model.text(tokens, layout))

    vectors = _by_length(texts, model.config.width, model, encode)
    known = np.flatnonzero(rows >= 0)
    identity = model.identity.weight.detach()[
        torch.from_numpy(rows[known]).to(model.norm.weight.device)
    ]
    vectors[torch.from_numpy(known)] += identity.float().cpu()
    return vectors


def predictive_states(
    model: PredictiveEncoder,
    items: torch.Tensor,
    histories: Ragged,
    marks: np.ndarray | None = None,
) -> torch.Tensor:
    """Return the state (n, D) after the last event of each history, rows of which index `items`.

    Of a history the newest `max_events` are read; that of an empty one is zero. `marks` (E, M) are
    those of its E events; without them nothing is known of when they were.
    """

    def encode(places: torch.Tensor, layout: Layout) -> torch.Tensor:
        at = places.cpu().numpy()
        events = items[torch.from_numpy(histories.values[at].astype(np.int64))].to(places.device)
        known = None
        if marks is not None:
            known = torch.from_numpy(marks[at].astype(np.int64)).to(places.device)
        return model.last(model.events(events, known), layout)

    numbered = Ragged(np.arange(len(histories.values)), histories.offsets)
    return _by_length(numbered.last(model.config.max_events), model.config.width, model, encode)


def _by_length(
    rows: Ragged,
    width: int,
    model: nn.Module,
    encode: Callable[[torch.Tensor, Layout], torch.Tensor],
) -> torch.Tensor:
    """Encode rows shortest first, chunk by chunk, and put the results back in order."""
    device = next(model.parameters()).device
    results = torch.zeros(len(rows), width)
    was_training = model.training
    if was_training:  # to walk through the modules is a tenth of the encode of one user
        model.eval()
    with torch.inference_mode():
        order = np.argsort(rows.lengths, kind="stable")
        order = order[np.searchsorted(rows.lengths[order], 1) :]  # an empty row stays zero
        for start, stop in ranges(rows.lengths[order], CHUNK):
            places = order[start:stop]
            chunk = rows.take(places)
            values = torch.from_numpy(chunk.values.astype(np.int64)).to(device)
            encoded = encode(values, Layout.of(chunk.lengths, device))
            results[torch.from_numpy(places)] = encoded.float().cpu()
    if was_training:
        model.train()
    return results


def by_service(events: Sequence[tuple[str, T]]) -> dict[str, list[T]]:
    """Return what was done in each service, in the order of the events (service, what)."""
    services: dict[str, list[T]] = {}
    for service, what in events:
        services.setdefault(service, []).append(what)
    return services


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Return the rows at unit length; a zero row stays zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
