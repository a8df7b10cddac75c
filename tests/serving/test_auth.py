import asyncio
import base64
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import ValidationError

from serving.app import ROUTERS, create_app
from serving.auth import PROBES, RANK, KeyConfig, check_routes, make, role_of
from serving.keys import ApiKey, Role
from serving.problems import OPENAI_PATH
from serving.settings import Settings
from tests.serving.client import body_of, problem, serving

SECRETS: dict[Role, str] = {role: f"{role}-{'s' * 40}" for role in RANK}
EMBED = body_of([{"films": ["one"]}])


def key(name: str, role: Role, secret: str, rate: str | None = None) -> ApiKey:
    return ApiKey(
        name=name, role=role, sha256=hashlib.sha256(secret.encode()).hexdigest(), rate=rate
    )


def guarded(settings: Settings, *more: ApiKey, **update: Any) -> Settings:
    keys = tuple(key(role, role, secret) for role, secret in SECRETS.items())
    return settings.model_copy(update={"keys": keys + more, **update})


def unloaded(**update: Any) -> Settings:
    """Settings of a service whose model cannot be loaded: what stands before it is the same."""
    return Settings(checkpoint=Path("none"), index=Path("none"), **update)


def routes() -> list[tuple[str, str, Role | None]]:
    """Method, path and role of every route, those that OpenAPI hides included."""
    own = [route for router in ROUTERS for route in router.routes]
    assert all(isinstance(route, APIRoute) for route in own)
    listed: list[tuple[str, str, Role | None]] = [
        (method, route.path_format, role_of(route))
        for route in own
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    ]
    app = create_app(unloaded())
    described = {
        (method.upper(), path) for path, each in app.openapi()["paths"].items() for method in each
    }
    assert described <= {(method, path) for method, path, _ in listed}
    built_in = [getattr(route, "path", None) for route in app.routes]
    return [*listed, *(("GET", str(path), "read") for path in built_in if path)]


def test_every_route_but_the_probes_needs_a_known_key_of_a_large_enough_role() -> None:
    refused, too_small, let_in = 0, 0, 0

    async def test() -> None:
        nonlocal refused, too_small, let_in
        async with serving(guarded(unloaded())) as (client, _):

            async def answer(method: str, path: str, **headers: str) -> httpx.Response:
                return await client.request(method, path, headers=headers)

            for method, path, role in routes():
                if path in PROBES:
                    assert (await answer(method, path)).status_code in (200, 503)
                    assert role is None
                    continue
                assert role is not None
                for wrong in ("", "Bearer", "Bearer wrong", "Basic !", f"Digest {SECRETS[role]}"):
                    closed = await answer(method, path, authorization=wrong)
                    assert closed.status_code == 401
                    assert path == OPENAI_PATH or problem(closed, 401)["type"].endswith("no-key")
                    assert "www-authenticate" in closed.headers
                    refused += 1
                for held, secret in SECRETS.items():
                    bearer = f"Bearer {secret}"
                    answered = await answer(method, path, authorization=bearer)
                    kind = answered.headers.get("content-type") == "application/problem+json"
                    small = kind and answered.json()["type"].endswith("role-too-small")
                    if RANK[held] < RANK[role]:
                        # a body that does not fit may be refused first, and nothing is done
                        assert answered.status_code in (403, 415, 422)
                        too_small += 1
                    else:
                        assert answered.status_code not in (401, 403)
                        assert not small
                        let_in += 1

    asyncio.run(test())
    assert refused >= 5 * 8
    assert let_in >= 8 * 2


def test_a_route_without_a_role_cannot_be_served() -> None:
    router = APIRouter()

    @router.get("/open")
    async def forgotten() -> None: ...

    with pytest.raises(RuntimeError, match="/open requires no role"):
        check_routes([router])


def test_a_key_is_a_bearers_a_password_or_a_header_of_its_own(settings: Settings) -> None:
    secret = SECRETS["read"]
    password = base64.b64encode(f"anybody:{secret}".encode()).decode()

    async def test() -> None:
        async with serving(guarded(settings)) as (client, _):
            for headers in (
                {"authorization": f"Bearer {secret}"},
                {"authorization": f"bEARER  {secret} "},
                {"authorization": f"Basic {password}"},
                {"x-api-key": secret},
            ):
                answer = await client.post("/v1/users/embed", json=EMBED, headers=headers)
                assert answer.status_code == 200, headers
            browser = await client.get("/docs", headers={"accept": "text/html,*/*"})
            assert browser.headers["www-authenticate"].startswith("Basic")

    asyncio.run(test())


def test_two_keys_of_one_client_are_good_while_they_change(settings: Settings) -> None:
    new = key("web-2", "read", "new")
    old = key("web-1", "read", "old")

    async def statuses(*keys: ApiKey) -> list[int]:
        async with serving(settings.model_copy(update={"keys": keys})) as (client, _):
            return [
                (
                    await client.get("/v1/models", headers={"authorization": f"Bearer {each}"})
                ).status_code
                for each in ("old", "new")
            ]

    assert asyncio.run(statuses(old)) == [200, 401]
    assert asyncio.run(statuses(old, new)) == [200, 200]
    assert asyncio.run(statuses(new)) == [401, 200]


def test_a_stranger_is_refused_before_the_body_is_read() -> None:
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 65_536, "more_body": True}

    async def test() -> int:
        app = create_app(guarded(unloaded()))
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/users/embed", "headers": []}
        scope |= {"query_string": b"", "http_version": "1.1", "client": ("10.0.0.1", 1)}
        await app(scope, receive, send)
        return sent[0]["status"]

    assert asyncio.run(test()) == 401
    assert read == 0


def test_without_keys_only_this_machine_is_answered(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def statuses() -> dict[str, int]:
        seen: dict[str, int] = {}
        async with serving(settings) as (_, app):
            for client, host in (
                ("127.0.0.1", "localhost:8000"),
                ("::1", "[::1]:8000"),
                ("10.0.0.7", "localhost"),
                ("127.0.0.1", "rebound.example"),
            ):
                transport = httpx.ASGITransport(app, client=(client, 1))
                async with httpx.AsyncClient(
                    transport=transport, base_url=f"http://{host}"
                ) as http:
                    seen[f"{client} {host}"] = (await http.get("/v1/models")).status_code
                    assert (await http.get("/livez")).status_code == 200
        return seen

    with caplog.at_level(logging.WARNING, logger="clue.serving"):
        assert list(asyncio.run(statuses()).values()) == [200, 200, 403, 403]
    assert "NO API KEYS" in caplog.text


def test_a_key_has_a_rate_and_other_keys_do_not_pay_for_it(settings: Settings) -> None:
    slow = key("slow", "read", "slow", rate="2/minute")

    async def test() -> None:
        async with serving(guarded(settings, slow)) as (client, _):

            async def get(secret: str) -> httpx.Response:
                return await client.get("/v1/models", headers={"x-api-key": secret})

            assert [(await get("slow")).status_code for _ in range(2)] == [200, 200]
            refused = await get("slow")
            assert problem(refused, 429)["type"] == "urn:clue:problem:rate-limited"
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert [(await get(SECRETS["read"])).status_code for _ in range(5)] == [200] * 5

    asyncio.run(test())


def test_pages_of_other_origins_are_let_in_by_name_alone(settings: Settings) -> None:
    async def allowed(origin: str, origins: tuple[str, ...]) -> list[str | None]:
        async with serving(settings.model_copy(update={"cors_origins": origins})) as (client, _):
            asked = {"origin": origin, "access-control-request-method": "POST"}
            preflight = await client.options("/v1/users/embed", headers=asked)
            simple = await client.get("/v1/models", headers={"origin": origin})
            return [
                answer.headers.get("access-control-allow-origin") for answer in (preflight, simple)
            ]

    ours = "https://shop.example"
    assert asyncio.run(allowed(ours, ())) == [None, None]
    assert asyncio.run(allowed(ours, (ours,))) == [ours, ours]
    assert asyncio.run(allowed("https://evil.example", (ours,))) == [None, None]


def test_settings_of_keys_rates_and_origins_that_are_wrong_are_refused(tmp_path: Path) -> None:
    good = key("web", "read", "one").model_dump()
    broken = tmp_path / "keys.json"
    broken.write_text("[{]")
    wrong: list[dict[str, Any]] = [
        {"keys": [{**good, "sha256": "one"}]},
        {"keys": [{**good, "role": "root"}]},
        {"keys": [{**good, "name": "a b"}]},
        {"keys": [{**good, "key": "one"}]},
        {"keys": [good, {**good, "role": "write"}]},
        {"keys_file": broken},
        {"keys_file": tmp_path / "none.json"},
        {"rate": "many"},
        {"cors_origins": ["*"]},
        {"cors_origins": ["shop.example"]},
    ]
    for update in wrong:
        with pytest.raises(ValidationError):
            unloaded(**update)
    whole = tmp_path / "whole.json"
    whole.write_text(json.dumps([good]))
    assert [each.name for each in unloaded(keys_file=whole).api_keys()] == ["web"]


def test_a_new_key_is_shown_once_and_its_hash_is_what_the_settings_take(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(KeyConfig(name="web", role="write"))
    shown, line = capsys.readouterr().out.splitlines()
    secret = shown.rpartition(" ")[2]
    (made,) = unloaded(keys=json.loads(line)).api_keys()
    assert made == key("web", "write", secret)
    assert len(secret) >= 40
    assert secret not in line
