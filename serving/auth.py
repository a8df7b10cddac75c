"""Who may ask: API keys, their roles and their rates, all before a byte of a body is read.

    python -m serving.auth name=web role=read

prints a new key once, and the line for `CLUE_KEYS` or the file of `CLUE_KEYS_FILE`, which holds its
SHA-256 alone: a key has 256 random bits, so that no slow hash is needed. A key is changed by adding
the new one, moving the clients, and taking the old one out.

Without any key the service answers only this machine (a loopback address, asked for by a local
name, so that no page of the web reaches it by a name of its own that points here).
"""

import base64
import binascii
import hashlib
import hmac
import json
import math
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import limits
from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from clue.config import run_command
from serving.keys import ApiKey, Role
from serving.problems import Problem, refuse

PROBES = ("/livez", "/readyz", "/startupz")
RANK: dict[Role, int] = {"read": 0, "write": 1, "admin": 2}
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
LOCAL_CLIENTS = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Caller:
    """Who a request is from: the name of its key, and what it may do."""

    name: str
    role: Role
    rate: str | None = None


NOBODY_ELSE = Caller("local", "admin")


class Guard:
    """ASGI middleware: every request but the probes' is somebody's, and within their rate."""

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey], rate: str | None) -> None:
        """Stand before `app`. `rate` is that of keys without their own."""
        self.app = app
        self._keys = [
            (bytes.fromhex(k.sha256), Caller(k.name, k.role, k.rate or rate)) for k in keys
        ]
        rates = {rate, *(caller.rate for _, caller in self._keys)} - {None}
        self._rates = {text: limits.parse(text) for text in rates if text}
        self._limiter = MovingWindowRateLimiter(MemoryStorage()) if rates else None
        self._local = Caller(NOBODY_ELSE.name, NOBODY_ELSE.role, rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event stream (ASGI)."""
        if scope["type"] == "http" and scope["path"] not in PROBES:
            try:
                caller = self.identify(scope)
                self._count(caller)
            except Problem as problem:
                await refuse(problem, scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)

    def identify(self, scope: Scope) -> Caller:
        """Return who sent the headers of `scope`.

        Raises Problem 401 without a key that is known and, where there are none, 403 for a client
        of another machine.
        """
        headers = Headers(scope=scope)
        if not self._keys:
            if _is_local(scope.get("client"), headers.get("host", "localhost")):
                return self._local
            detail = "without API keys only this machine is answered; set CLUE_KEYS"
            raise Problem(403, "no-keys", detail, headers={"connection": "close"})
        digest = hashlib.sha256(_presented(headers)).digest()
        # all of them, whichever it is: how long it takes says nothing of where it stands
        known = [caller for own, caller in self._keys if hmac.compare_digest(own, digest)]
        if not known:
            # a browser asks for the key as a password, and sends it with the page's own requests
            basic = "text/html" in headers.get("accept", "")
            challenge = 'Basic realm="CLUE", charset="UTF-8"' if basic else 'Bearer realm="CLUE"'
            detail = "send a known API key as authorization: Bearer KEY"
            closing = {"www-authenticate": challenge, "connection": "close"}
            raise Problem(401, "no-key", detail, headers=closing)
        return known[0]

    def _count(self, caller: Caller) -> None:
        if caller.rate is None or self._limiter is None:
            return
        rate = self._rates[caller.rate]
        if not self._limiter.hit(rate, caller.name):
            reset = self._limiter.get_window_stats(rate, caller.name).reset_time
            retry = {"retry-after": str(max(1, math.ceil(reset - time.time())))}
            detail = f"more than {caller.rate} by this key; come again after Retry-After seconds"
            raise Problem(429, "rate-limited", detail, headers={**retry, "connection": "close"})


def _is_local(client: tuple[str, int] | None, host: str) -> bool:
    """Return whether client and Host header are of this machine; a Unix socket has no client."""
    name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    return (client is None or client[0] in LOCAL_CLIENTS) and name.lower() in LOCAL_NAMES


def _presented(headers: Headers) -> bytes:
    """Return the key of a request: a bearer's, a password's, or that of x-api-key."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1", "replace")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (ValueError, binascii.Error):
            return b""
    return headers.get("x-api-key", "").encode("latin-1", "replace")


Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


# async: FastAPI has threads of its own run what is not, 0.2 ms for each request
async def reads(request: Request, _: Bearer) -> None:
    """Let through every known key; raises Problem 403."""
    require(request, "read")


async def writes(request: Request, _: Bearer) -> None:
    """Let through keys of the roles write and admin; raises Problem 403."""
    require(request, "write")


async def administers(request: Request, _: Bearer) -> None:
    """Let through keys of the role admin; raises Problem 403."""
    require(request, "admin")


def require(request: Request, role: Role) -> None:
    """Raise Problem 403 where the caller of a request has a smaller role."""
    caller: Caller = request.state.caller
    if RANK[caller.role] < RANK[role]:
        raise Problem(403, "role-too-small", f"this path needs a key of the role {role}")


READ, WRITE, ADMIN = Depends(reads), Depends(writes), Depends(administers)
ROLES: dict[Callable[..., Any], Role] = {reads: "read", writes: "write", administers: "admin"}


def role_of(route: APIRoute) -> Role | None:
    """Return the largest role that a route requires, None where it requires none."""
    calls = {each.call for each in route.dependant.dependencies}
    roles: list[Role] = [role for function, role in ROLES.items() if function in calls]
    return max(roles, key=lambda role: RANK[role], default=None)


def check_routes(routers: Sequence[APIRouter]) -> None:
    """Raise RuntimeError where a route requires no role and is no probe: nothing is open."""
    for route in (route for router in routers for route in router.routes):
        path = getattr(route, "path", "")
        if path not in PROBES and not (isinstance(route, APIRoute) and role_of(route)):
            raise RuntimeError(f"{path} requires no role; give it READ, WRITE or ADMIN")


@dataclass(frozen=True, kw_only=True)
class KeyConfig:
    """Whose key it is, and what it may do: read, write (and read) or admin (all)."""

    name: str
    role: Role


def make(config: KeyConfig) -> None:
    """Print a new key and its line of the settings."""
    key = secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode()).hexdigest()
    line = ApiKey(name=config.name, role=config.role, sha256=digest)
    sys.stdout.write(f"key, shown this once: {key}\n")
    sys.stdout.write(json.dumps([line.model_dump(exclude_none=True)]) + "\n")


if __name__ == "__main__":
    run_command(KeyConfig, make, description=__doc__)
