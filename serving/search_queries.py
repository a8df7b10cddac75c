"""From a valid search to the model thread's query: whose neighbours, which, compared by what."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clue.inference.encoder import Encoder
from clue.inference.events import text_of
from serving.catalogue import TEXT_BLOCKS, Catalogue
from serving.contents import is_unit
from serving.engine import Engine, Query, searched
from serving.filters import ItemFilter, UserFilter
from serving.histories import (
    Errors,
    from_bytes,
    history_of,
    moment_of,
    readable,
    reads_moments,
)
from serving.problems import Problem, invalid
from serving.rows import StoredUser
from serving.schemas import Event
from serving.search_schemas import ItemsFilter, SearchItemsRequest, SimilarUsersRequest, Target
from serving.settings import Settings
from serving.store import Store
from serving.vectors import KnownUser, Search

NOTHING = np.empty(0, np.int64)


def items_query(
    body: SearchItemsRequest, engine: Engine, settings: Settings, store: Store | None
) -> Query:
    """Return the query of an item search; Problem as `embed_query`, and 404 for an unknown user.

    Raises VectorsAway where a user of the index alone is meant and their vector is elsewhere.
    """
    catalogue = engine.index.catalogue
    service = None if body.service is None else _service(body.service, "/service", catalogue)
    search = Search(
        kind="items",
        k=body.k,
        exclude=NOTHING,
        service=service,
        filter=_items_filter(body.filter, catalogue),
        blocks=_item_blocks(body, engine),
    )
    if body.text is not None:
        return replace(_text_query(body, engine, settings), search=search)
    target = _target(body, search, engine, settings, store)
    exclude = NOTHING
    if body.exclude_seen and target.known is not None:
        exclude = np.unique(target.known.seen).astype(np.int64)
    elif body.exclude_seen:
        exclude = _rows_in(target.events, engine, settings)
    return replace(target.query, search=replace(search, exclude=exclude))


def users_query(
    body: SimilarUsersRequest, engine: Engine, settings: Settings, store: Store | None
) -> Query:
    """Return the query of a user search; raises as `items_query` does."""
    encoder, columns = engine.encoder, engine.encoder.similarity_columns
    compared = [
        name
        for name, own in encoder.blocks.items()
        if columns.start <= own.start and own.stop <= columns.stop
    ]
    blocks = _known_blocks(body.blocks, compared, "users are compared by")
    wanted = None
    if body.filter is not None:
        services = [
            _service(name, f"/filter/services/{n}", engine.index.catalogue)
            for n, name in enumerate(body.filter.services)
        ]
        wanted = UserFilter(services=tuple(services), min_events=body.filter.min_events)
    search = Search(kind="users", k=body.k, exclude=NOTHING, filter=wanted, blocks=blocks)
    target = _target(body, search, engine, settings, store)
    return replace(target.query, search=search, without=body.user_id)


def _service(name: str, pointer: str, catalogue: Catalogue) -> int:
    if name not in catalogue.services:
        known = "no items of this service; GET /v1/models lists the services of the index"
        raise invalid([(pointer, known)])
    return catalogue.services.index(name)


def _items_filter(wanted: ItemsFilter | None, catalogue: Catalogue) -> ItemFilter | None:
    if wanted is None:
        return None
    services = [
        _service(name, f"/filter/services/{n}", catalogue) for n, name in enumerate(wanted.services)
    ]
    return ItemFilter(
        services=tuple(services),
        item_ids=tuple(wanted.item_ids),
        exclude_item_ids=tuple(wanted.exclude_item_ids),
        min_events=wanted.min_events,
        contains=wanted.contains,
    )


def _item_blocks(body: SearchItemsRequest, engine: Engine) -> tuple[str, ...]:
    """Return the blocks that items are compared by; () for what ranks them."""
    catalogue, encoder = engine.index.catalogue, engine.encoder
    if body.blocks is None:
        return TEXT_BLOCKS if body.text is not None and encoder.blocks else ()
    # of activity items have nothing
    known = [name for name in catalogue.item_blocks if name != "activity"]
    blocks = _known_blocks(body.blocks, known, "items are compared by")
    if body.text is not None and body.service is None and "aligned" in blocks:
        raise invalid([("/blocks", "aligned reads a text as one of a service; give service")])
    return blocks


def _known_blocks(
    blocks: Sequence[str] | None, known: Sequence[str], sentence: str
) -> tuple[str, ...]:
    """Return `blocks` in the order of the vector, () for none; Problem 422 for an unknown one."""
    has = f"{sentence} {', '.join(known)}" if known else "the vector of this model has no blocks"
    wrong = [n for n, name in enumerate(blocks or ()) if name not in known]
    if wrong:
        raise invalid([(f"/blocks/{n}", has) for n in wrong])
    return tuple(name for name in known if blocks and name in blocks)


def _text_query(body: SearchItemsRequest, engine: Engine, settings: Settings) -> Query:
    """Return the query of a text, read as the items' texts are."""
    encoder, text = engine.encoder, body.text or ""
    if encoder.reads != "text":
        raise invalid(
            [("/text", "the model reads item ids; search with events, vector or user_id")]
        )
    if encoder.blocks and not engine.index.catalogue.item_blocks:
        detail = "the index is of an older version and knows no words; build it again"
        raise Problem(409, "no-texts", detail)
    if len(text.encode()) > settings.max_text_bytes:
        raise invalid([("/text", f"is longer than {settings.max_text_bytes} bytes")])
    if encoder.unread([(body.service or "", text)]):
        raise invalid([("/text", "has nothing the model can read")])
    _require_k(body, settings)
    return Query(item=(text, body.service))


def _require_k(body: Target, settings: Settings) -> None:
    if body.k > settings.max_k:
        raise invalid([("/k", f"is at most {settings.max_k}")])


def unknown_user() -> Problem:
    """Return the 404 of a user whom neither the store nor the index has."""
    return Problem(404, "unknown-user", "the index holds no such user; send its events")


def _rows_in(events: Sequence[Event], engine: Engine, settings: Settings) -> np.ndarray:
    """Return the rows of the items of `events`: by item id, and by what the model reads."""
    history = readable(events, engine.encoder, settings, np.inf)
    read = [(service, text_of(event)) for service, event in history]
    keys = zip((s for s, _ in read), engine.encoder.input_keys(read), strict=True)
    ids = [(event.service, event.item_id) for event in events if event.item_id is not None]
    catalogue = engine.index.catalogue
    return np.union1d(catalogue.rows_read(keys), catalogue.rows_of(ids)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class _Meant:
    """The user that a request means: a query, what the index has of them, or their `events`."""

    query: Query
    known: KnownUser | None = None
    events: Sequence[Event] = ()


def _target(
    body: Target, search: Search, engine: Engine, settings: Settings, store: Store | None
) -> _Meant:
    """Return the user that `body` means."""
    _require_k(body, settings)
    if body.events is not None:
        errors: Errors = []
        moment = moment_of(body.as_of)
        history = history_of(body.events, "/events", engine.encoder, settings, errors, moment)
        if errors:
            raise invalid(errors)
        return _Meant(Query(histories=[history], as_of=[moment]), events=body.events)
    encoder, kind = engine.encoder, search.kind
    if body.vector is not None:
        vector = _vector(body.vector, encoder)
        return _Meant(Query(vector=searched(encoder, vector, kind, search.blocks)))
    assert body.user_id is not None  # the schema wants one of the three
    stored = None if store is None else store.user(body.user_id)
    if store is not None and stored is not None:
        return _stored(stored, body.as_of, search, engine, settings, store)
    return _indexed(body.user_id, body.as_of, search, engine)


def _indexed(user_id: str, as_of: float | None, search: Search, engine: Engine) -> _Meant:
    """Return a user of the index alone: of them what is compared is known, and no history."""
    known = engine.index.user(user_id)
    if known is None:
        raise unknown_user()
    if as_of is not None:
        detail = "of this user only a vector is known, as of their last event; PUT their events"
        raise invalid([("/as_of", detail)])
    if search.kind == "items":
        if search.blocks:
            detail = "of this user the ranking columns alone are known; send events or a vector"
            raise invalid([("/blocks", detail)])
        return _Meant(Query(vector=known.state), known)
    vector = known.vector
    if search.blocks:
        whole = np.zeros(engine.encoder.width, np.float32)
        whole[engine.encoder.similarity_columns] = vector
        vector = searched(engine.encoder, whole, search.kind, search.blocks)
    return _Meant(Query(vector=vector), known)


def _stored(
    user: StoredUser,
    as_of: float | None,
    search: Search,
    engine: Engine,
    settings: Settings,
    store: Store,
) -> _Meant:
    """Return a stored user: their vector, or their history where that is of another moment."""
    if user.events is None:
        raise unknown_user()
    encoder = engine.encoder
    events = from_bytes(user.events)
    if as_of is None or not reads_moments(encoder) or as_of == user.as_of:
        made = store.vector(user.user_id, encoder.fingerprint)
        if made is not None and made.seq == user.seq and len(made.vector):
            vector = searched(encoder, made.vector, search.kind, search.blocks)
            return _Meant(Query(vector=vector), events=events)
    moment = moment_of(user.as_of if as_of is None else as_of)
    history = readable(events, encoder, settings, moment)
    if not history:
        detail = "leaves no event of this user that the model reads; say a later one"
        raise invalid([("/as_of", detail)])
    return _Meant(Query(histories=[history], as_of=[moment]), events=events)


def _vector(coordinates: Sequence[float], encoder: Encoder) -> np.ndarray:
    """Return a vector (E,) as the model makes them."""
    if len(coordinates) != encoder.width:
        raise invalid([("/vector", f"has {encoder.width} coordinates in this model")])
    if not encoder.blocks and not is_unit(np.asarray(coordinates)):
        raise invalid([("/vector", "is not of length one; divide it by its norm")])
    with np.errstate(over="ignore", invalid="ignore"):  # 1e300 is no float32
        vector = np.asarray(coordinates, np.float32)
        compared = searched(encoder, vector, "users")
    if not np.isfinite(vector).all() or not is_unit(compared):
        where = encoder.similarity_columns
        raise invalid(
            [("/vector", f"has no finite length in columns {where.start} to {where.stop}")]
        )
    return vector
