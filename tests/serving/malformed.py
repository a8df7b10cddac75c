"""Requests that must be refused, by kind; each one is a (method, path, headers, body)."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

EMBED, ITEMS, USERS = "/v1/users/embed", "/v1/items/search", "/v1/users/similar"
JSON = {"content-type": "application/json"}
PUT, APPEND, UPSERT = "/v1/users/new", "/v1/users/new/events", "/v1/users/upsert"
HISTORIES, IDS = "/v1/explore/histories", "/v1/explore/users"
ACTIVATE = "/v1/models/000001-aaaaaaaaaaaa:activate"
EVENT = '{"service":"films","text":"tea"}'
# a body that each route with one takes, and where a text of the client's own stands in it
GOOD = {
    EMBED: f'{{"users":[{{"events":[{EVENT}]}}]}}',
    ITEMS: f'{{"events":[{EVENT}]}}',
    USERS: f'{{"events":[{EVENT}]}}',
    PUT: f'{{"events":[{EVENT}]}}',
    APPEND: f'{{"events":[{EVENT}]}}',
    UPSERT: f'{{"users":[{{"user_id":"new","events":[{EVENT}]}}]}}',
    HISTORIES: '{"user_ids":["tea"]}',
    ACTIVATE: "{}",
}
WRITES = (PUT, APPEND, UPSERT)


@dataclass(frozen=True)
class Bad:
    kind: str
    content: bytes | list[bytes] = b""
    path: str = EMBED
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: JSON)


def bad(kind: str, text: str | bytes, path: str = EMBED) -> Bad:
    content = text if isinstance(text, bytes) else text.encode("utf-8")
    return Bad(kind, content, path, "PUT" if path == PUT else "POST")


def malformed(width: int, user_id: str) -> Iterator[Bad]:
    """Requests for a service with a store, of vectors of `width`, whose index holds `user_id`."""
    good = GOOD[EMBED]
    yield from _not_json(good)
    yield from _numbers(width)
    yield from _shapes()
    yield from _targets(width, user_id)
    yield from _limits(good)
    yield from _http(good)
    for path in GOOD:
        yield from _anywhere(path)
    for path in WRITES:
        yield from _histories(path)
    yield from _ids()
    yield from _explore()
    yield from _headers(user_id)


def _anywhere(path: str) -> Iterator[Bad]:
    """What no route with a body takes."""
    good = GOOD[path]
    for text in ("", "{", good + "x", good[:-1], "\0", "[]", "null", "1", '"x"', "true"):
        yield bad("not JSON", text, path)
    for blob in (b"\xff\xfe{}", good.encode("utf-16"), b'{"\xc3\x28":1}', b'{"a":"\xed\xa0\x80"}'):
        yield bad("not UTF-8", blob, path)
    yield bad("byte order mark", good.encode("utf-8-sig"), path)
    yield bad("deep nesting", "[" * 100_000, path)
    yield bad("deep nesting", '{"a":' * 50_000 + "1" + "}" * 50_000, path)
    yield bad("key given twice", '{"a":1,"a":2}', path)
    for value in ("NaN", "-Infinity", "9" * 5000):
        yield bad("wrong number", f'{{"a":{value}}}', path)
    yield bad("unknown field", good[:-1] + (',"admin":true}' if good != "{}" else '"a":1}'), path)
    yield bad("lone surrogate", '{"\\ud800":1}', path)
    large = good.encode() + b" " * 2_000_000
    yield bad("oversized body", large, path)
    method = "PUT" if path == PUT else "POST"
    yield Bad("wrong content type", good.encode(), path, method, {"content-type": "text/plain"})
    bomb = gzip.compress(b" " * 10_000_000)
    yield Bad("compressed", bomb, path, method, {**JSON, "content-encoding": "gzip"})
    if "tea" in good:
        for wrong in ("\\ud800", "a\\udfffb", "\\u0000"):
            yield bad("lone surrogate", good.replace("tea", wrong), path)


def _histories(path: str) -> Iterator[Bad]:
    """What no route that writes a user stores."""
    good = GOOD[path]

    def event(text: str) -> Bad:
        return bad("wrong event", good.replace(EVENT, text), path)

    for number in (
        "NaN",
        "1e999",
        '"nan"',
        "true",
        "[]",
        "1e12",
        "-1e12",
        '"2023-02-30T00:00:00Z"',
    ):
        yield event(EVENT.replace("}", f',"time":{number}}}'))
        as_of = good.replace('"events"', f'"as_of":{number},"events"')
        yield bad("wrong number", as_of, path)
    for text in (
        "",
        '{"service":"films"}',
        '{"text":"tea"}',
        "null",
        "[]",
        '{"service":1,"text":"a"}',
    ):
        yield event(text)
    yield event(EVENT.replace("}", ',"colour":"red"}'))
    yield event(f'{EVENT},{{"service":"films","text":""}}')
    yield event(",".join([EVENT] * 1025))
    yield event(EVENT.replace("tea", "x" * 2049))
    for vector in ("[NaN]", "[0.5]", "[1e999]", '"AAAAgD8="'):
        yield bad("vector of the client's own", good[:-1] + f',"vector":{vector}}}', path)


def _ids() -> Iterator[Bad]:
    """Ids in a path that are none."""
    content = GOOD[PUT].encode()
    for text in (
        "x" * 257,
        "%F0%9F%98%80" * 65,
        "a%00b",
        "%ff",
        "a%ED%A0%80",
        "%C3%28",
        "a/b",
        "a/",
    ):
        path = f"/v1/users/{text}"
        yield Bad("wrong id", content, path, "PUT")
        yield Bad("wrong id", content, f"{path}/events")
        yield Bad("wrong id", method="GET", path=path)
        yield Bad("wrong id", method="DELETE", path=path)
    for text in ('""', "1", "null", '"a\\u0000"', '"\\ud800"', f'"{"x" * 257}"', "[]"):
        yield bad("wrong id", GOOD[UPSERT].replace('"new"', text), UPSERT)
        yield bad("wrong id", GOOD[HISTORIES].replace('"tea"', text), HISTORIES)
    twice = f'{{"user_id":"new","events":[{EVENT}]}}'
    yield bad("wrong id", f'{{"users":[{twice},{twice}]}}', UPSERT)
    yield bad("too many", f'{{"users":[{",".join([twice] * 65)}]}}', UPSERT)
    for path in ("/v1/users/nobody", "/v1/users/..%2F..%2Fetc%2Fpasswd"):
        yield Bad("unknown user", method="GET", path=path)
        yield Bad("unknown user", method="DELETE", path=path)


def _explore() -> Iterator[Bad]:
    for limit in ("0", "-1", "101", "1000000000", "1.5", "x", "", "NaN", "9" * 5000):
        yield Bad("wrong query", method="GET", path=f"{IDS}?limit={limit}")
        body = f'{{"user_ids":["tea"],"newest":{limit or "null"}}}'
        if limit != "0":
            yield bad("wrong number", body, HISTORIES)
    yield Bad("wrong query", method="GET", path=f"{IDS}?prefix={'x' * 257}")
    many = json.dumps({"user_ids": ["tea"] * 101})
    for body in ('{"user_ids":[]}', '{"user_ids":"tea"}', "{}", many):
        yield bad("wrong type", body, HISTORIES)
    for name in ("x", "000001", "..%2Fmodels", "000001-AAAAAAAAAAAA", "000001-aaaaaaaaaaaa%00"):
        yield bad("unknown generation", "{}", f"/v1/models/{name}:activate")


def _headers(user_id: str) -> Iterator[Bad]:
    known = f'{{"user_id":{json.dumps(user_id)}}}'.encode()
    for value in ("-1", "x", "1.5", "1e9", "NaN", "", "9" * 5000):
        seen = {**JSON, "x-min-seq": value}
        late = {**JSON, "x-request-timeout-ms": value}
        if value:
            yield Bad("wrong header", known, USERS, "POST", seen)
            yield Bad("wrong header", method="GET", path="/v1/users/nobody", headers=seen)
        yield Bad("wrong header", known, ITEMS, "POST", late)
        yield Bad("wrong header", GOOD[PUT].encode(), PUT, "PUT", late)


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
