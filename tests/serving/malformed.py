"""Requests that must be refused, by kind; each one is a (method, path, headers, body)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

EMBED, ITEMS, USERS = "/v1/users/embed", "/v1/items/search", "/v1/users/similar"
JSON = {"content-type": "application/json"}
EVENT = '{"service":"films","text":"tea"}'


@dataclass(frozen=True)
class Bad:
    kind: str
    content: bytes | list[bytes] = b""
    path: str = EMBED
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: JSON)


def bad(kind: str, text: str | bytes, path: str = EMBED) -> Bad:
    return Bad(kind, text if isinstance(text, bytes) else text.encode("utf-8"), path)


def malformed(width: int, user_id: str) -> Iterator[Bad]:
    """Requests for a service of vectors of `width` whose index holds `user_id`."""
    good = f'{{"users":[{{"events":[{EVENT}]}}]}}'
    yield from _not_json(good)
    yield from _numbers(width)
    yield from _shapes()
    yield from _targets(width, user_id)
    yield from _limits(good)
    yield from _http(good)


def _not_json(good: str) -> Iterator[Bad]:
    for text in (
        "",
        " ",
        "{",
        "[1",
        "nul",
        "'a'",
        good + "x",
        good[:-1],
        "{'users':1}",
        "//",
        "\0",
    ):
        yield bad("not JSON", text)
    for blob in (
        b"\xff\xfe{}",
        b"\x80",
        good.encode("utf-16"),
        good.encode("utf-32"),
        b'"\xc3\x28"',
    ):
        yield bad("not UTF-8", blob)
    yield bad("not UTF-8", good.replace("tea", "\0").encode().replace(b"\0", b"\xed\xa0\x80"))
    yield bad("byte order mark", b"\xef\xbb\xbf" + good.encode())
    yield bad("byte order mark", good.encode("utf-8-sig"), ITEMS)
    for opening in ("[", '{"users":', '{"users":[', '{"a":'):
        yield bad("deep nesting", opening * 100_000)
    yield bad("deep nesting", "[" * 50_000 + "]" * 50_000)
    for text in (
        '{"users":[],"users":[]}',
        good[:-1] + ',"users":[]}',
        good.replace('"text":"tea"', '"text":"tea","text":"tea"'),
        good.replace('"tea"', '"tea","x":{"y":1,"y":2}'),
    ):
        yield bad("key given twice", text)
    for wrong in ("\\ud800", "a\\udfffb", "\\udc00\\ud800"):
        yield bad("lone surrogate", good.replace("tea", wrong))
        yield bad("lone surrogate", good.replace("films", wrong))
        yield bad("lone surrogate", f'{{"users":[{{"user_id":"{wrong}","events":[{EVENT}]}}]}}')
        yield bad("lone surrogate", f'{{"{wrong}":1}}')
        yield bad("lone surrogate", f'{{"user_id":"{wrong}"}}', ITEMS)
    for place in ("tea", "films"):
        yield bad("NUL", good.replace(place, "a\\u0000b"))
    yield bad("NUL", '{"user_id":"a\\u0000"}', USERS)


def _numbers(width: int) -> Iterator[Bad]:
    wrong = [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        '"nan"',
        '"1"',
        "true",
        '"Infinity"',
    ]
    wrong += ["9" * 5000, "1" + "0" * 400, "[]", "{}", "0x10", "01", "1.", "+1", "--1"]
    for number in wrong:
        stamped = EVENT.replace("}", f',"timestamp":{number}}}')
        yield bad("wrong number", f'{{"users":[{{"events":[{stamped}]}}]}}')
        yield bad("wrong number", f'{{"vector":[{number}{",0" * (width - 1)}]}}', ITEMS)
        yield bad("wrong number", f'{{"k":{number},"events":[{EVENT}]}}', USERS)


def _shapes() -> Iterator[Bad]:
    for value in ("null", "1", "[]", '"x"', "true", "1.5", "[[]]", "{}"):
        yield bad("wrong type", value)
        if value != "[[]]":
            yield bad("wrong type", f'{{"users":[{value}]}}')
        if value != "[]":
            yield bad("wrong type", f'{{"users":{value}}}')
            yield bad("wrong type", f'{{"users":[{{"events":{value}}}]}}')
        if value != '"x"':
            yield bad(
                "wrong type", f'{{"users":[{{"events":[{{"service":{value},"text":"a"}}]}}]}}'
            )
            yield bad(
                "wrong type", f'{{"users":[{{"events":[{{"service":"a","text":{value}}}]}}]}}'
            )
    for text in ('{"users":[]}', '{"users":[{"events":[]}]}'):
        yield bad("empty", text)
    yield bad("empty", '{"events":[]}', ITEMS)
    yield bad("empty", '{"vector":[]}', ITEMS)
    yield bad("empty", '{"user_id":""}', USERS)
    for service, words in (("", "a"), ("a", "")):
        event = json.dumps({"service": service, "text": words})
        yield bad("empty", f'{{"users":[{{"events":[{event}]}}]}}')
    yield bad("missing field", '{"users":[{"user_id":"a"}]}')
    yield bad("missing field", '{"users":[{"events":[{"text":"a"}]}]}')
    yield bad("missing field", '{"users":[{"events":[{"service":"a"}]}]}')
    for extra in ('"admin":true', '"__proto__":{}', '"":1'):
        yield bad("unknown field", f'{{{extra},"users":[{{"events":[{EVENT}]}}]}}')
        yield bad("unknown field", f'{{{extra},"events":[{EVENT}]}}', ITEMS)


def _targets(width: int, user_id: str) -> Iterator[Bad]:
    user, vector = f'"user_id":{json.dumps(user_id)}', json.dumps([1.0] + [0.0] * (width - 1))
    for path in (ITEMS, USERS):
        for k in ("0", "-1", "1000000000", "101", "1.5", "1e9", '"10"', "true", "null", "1" * 40):
            yield bad("wrong k", f'{{{user},"k":{k}}}', path)
        for name in ("nobody", "zzz", "\U0001f600", "../../etc/passwd", "' OR 1=1 --"):
            yield bad("unknown user", json.dumps({"user_id": name}), path)
        for wrong in (
            [1.0] * (width - 1),
            [1.0] + [0.0] * width,
            [1.0],
            [0.0] * width,
            [1.0] * width,
            [0.5] + [0.0] * (width - 1),
            [1e300] * width,
            [1e-300] * width,
        ):
            yield bad("wrong vector", json.dumps({"vector": wrong}), path)
        yield bad("contradiction", "{}", path)
        yield bad("contradiction", f'{{{user},"vector":{vector}}}', path)
        yield bad("contradiction", f'{{{user},"events":[{EVENT}]}}', path)
        yield bad("contradiction", f'{{"vector":{vector},"events":[{EVENT}]}}', path)
    yield bad("contradiction", f'{{"vector":{vector},"exclude_seen":true}}', ITEMS)
    for service in ('"nowhere"', '""', "1", '"FILMS "', "[]"):
        yield bad("unknown service", f'{{{user},"service":{service}}}', ITEMS)


def _limits(good: str) -> Iterator[Bad]:
    users = ",".join([f'{{"events":[{EVENT}]}}'] * 65)
    yield bad("too many", f'{{"users":[{users}]}}')
    events = ",".join([EVENT] * 1025)
    yield bad("too many", f'{{"users":[{{"events":[{events}]}}]}}')
    yield bad("too many", f'{{"events":[{events}]}}', ITEMS)
    yield bad("too long", good.replace("tea", "x" * 2049))
    yield bad("too long", good.replace("tea", "é" * 1025))
    yield bad("too long", good.replace("films", "x" * 257))
    yield bad("too long", json.dumps({"user_id": "\U0001f600" * 65}), USERS)
    large = good.encode() + b" " * 2_000_000
    yield bad("oversized body", large)
    yield Bad("oversized body", [large[i : i + 65_536] for i in range(0, len(large), 65_536)])
    yield Bad("oversized body", large, method="GET", path="/v1/models")


def _http(good: str) -> Iterator[Bad]:
    kinds = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    kinds += ["application/xml", "application/jsonx", "*/*", "", "application/octet-stream"]
    for kind in kinds:
        yield Bad("wrong content type", good.encode(), headers={"content-type": kind})
    yield Bad("wrong content type", good.encode(), headers={})
    for coding in ("gzip", "deflate", "br"):
        yield Bad("compressed", good.encode(), headers={**JSON, "content-encoding": coding})
    for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
        for path in (EMBED, ITEMS, USERS):
            yield Bad("wrong method", good.encode(), path, method)
    for path in ("/livez", "/readyz", "/v1/models"):
        yield Bad("wrong method", good.encode(), path)
    for path in (
        "/",
        "/v1",
        "/v2/users/embed",
        EMBED + "/",
        "//v1/users/embed",
        "/v1/users/embed%00",
    ):
        yield Bad("unknown path", good.encode(), path)
    for path in ("/v1/models/1", "/%ff%fe", "/..%2f..%2fetc/passwd"):
        yield Bad("unknown path", path=path, method="GET")
