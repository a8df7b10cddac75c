"""From a valid body to the model thread's query, and the operator's limits on the way."""

from collections.abc import Sequence

from clue.inference.encoder import Encoder
from serving.engine import History, Query
from serving.histories import Errors, history_of, moment_of
from serving.problems import invalid
from serving.schemas import EmbedRequest
from serving.settings import Settings


def embed_query(body: EmbedRequest, encoder: Encoder, settings: Settings) -> Query:
    """Return the query of an embed request; Problem 422 with all that is wrong in it."""
    if len(body.users) > settings.max_users:
        raise invalid([("/users", f"more than {settings.max_users} users; send several requests")])
    errors: Errors = []
    for number, name in enumerate(body.blocks or []):
        if name not in encoder.blocks:
            known = f"has the blocks {', '.join(encoder.blocks)}" if encoder.blocks else "has none"
            errors.append((f"/blocks/{number}", f"is no block; the vector of this model {known}"))
    moments = [moment_of(body.as_of if user.as_of is None else user.as_of) for user in body.users]
    histories = [
        history_of(user.events, f"/users/{number}/events", encoder, settings, errors, as_of)
        for number, (user, as_of) in enumerate(zip(body.users, moments, strict=True))
    ]
    if errors:
        raise invalid(errors)
    return Query(histories=histories, as_of=moments)


def unseen(histories: Sequence[History], services: Sequence[str]) -> list[str]:
    """Return the services of `histories` that are not among `services`, sorted."""
    return sorted({name for history in histories for name, _ in history}.difference(services))
