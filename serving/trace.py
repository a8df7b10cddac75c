"""What becomes known of a request on its way through the service."""

from dataclasses import dataclass, field

from starlette.types import Scope


@dataclass
class Trace:
    """What becomes known of a request on its way: `seconds` by stage, the problem, the tokens."""

    request_id: str
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    tokens: int = 0
    problem: str | None = None


def trace_of(scope: Scope) -> Trace:
    """Return the trace of a request; one of its own where nobody observes it."""
    return scope.setdefault("state", {}).setdefault("trace", Trace(""))
