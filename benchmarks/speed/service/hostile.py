"""Connections that trickle and a body that is far too long, while others are answered as before."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.speed.report import claim
from benchmarks.speed.service.encode import embeds
from benchmarks.speed.service.load import Load, Plan, Stream, run, sending
from benchmarks.speed.service.process import Server, say
from benchmarks.speed.service.study import Study

SLOW = 200
LIMIT_SECONDS = 10.0  # CLUE_HEADER_SECONDS and CLUE_BODY_SECONDS, unless set otherwise
# uvicorn's own close, and a second more of grace in which the application may refuse the body
GRACE_SECONDS = 2.0
SHARE = 0.4  # of the peak: normal load
MB = 1e6
LARGE = 100_000_000
BLOCK = b"x" * 65_536
TRICKLED = {
    "headers": b"POST /v1/users/embed HTTP/1.1\r\nhost: localhost\r\n",
    "body": b"POST /v1/users/embed HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: application/json\r\ncontent-length: 4000\r\n\r\n",
}


@dataclass(frozen=True)
class Hostile:
    """A plan that is sent while `slow` connections trickle a byte a second."""

    plan: Plan
    slow: int
    give_up: float


def measure(study: Study, server: Server, peak: float, limit: float = LIMIT_SECONDS) -> None:
    """Add the rows and claims; `limit` are the server's seconds for headers and for a body."""
    _slow(study, server, peak, limit)
    _large(study, server)


def _slow(study: Study, server: Server, peak: float, limit: float) -> None:
    seconds = limit + GRACE_SECONDS
    stream = Stream(requests=embeds([[u] for u in study.users], "base64"), rate=SHARE * peak)
    plan = Plan(address=server.address, seconds=seconds, streams={"embed": stream})
    case = f"{SHARE:g} of the peak"
    p99: dict[str, list[float]] = {}
    freed: list[float] = []
    loads: dict[str, list[Load]] = {}
    for number in range(study.rounds):
        for arm, slow in (("alone", 0), (f"with {SLOW} slow connections", SLOW)):
            load, ended = study.generator.submit(
                send_beside, Hostile(plan, slow, seconds + 2)
            ).result()
            p99.setdefault(arm, []).append(load.answers["embed"].quantile_ms(0.99))
            loads.setdefault(arm, []).append(load)
            freed += ended
        say(f"slow connections: round {number + 1} of {study.rounds} done")
    for arm, made in loads.items():
        embed = [load.answers["embed"] for load in made]
        study.timed(
            case,
            arm,
            made,
            "embed",
            requests=[each.count(200) / seconds for each in embed],
            errors=[len(each.status) - each.count(200) for each in embed],
        )
    alone, beside = p99.values()
    ratios = sorted(b / a for a, b in zip(alone, beside, strict=True))
    in_time = sum(took <= limit + GRACE_SECONDS for took in freed)
    study.claims.extend(
        [
            claim(
                f"Share of {len(freed)} slow connections freed", in_time / len(freed), "at least", 1
            ),
            claim(
                f"Seconds until the last is, of a limit of {limit:g} s",
                max(freed),
                "at most",
                limit + GRACE_SECONDS,
            ),
            claim("p99 beside them / alone", ratios[len(ratios) // 2], "at most", 1.5),
        ]
    )


def send_beside(hostile: Hostile) -> tuple[Load, list[float]]:
    """Return what came of the plan, and after how long each slow connection was freed.

    One that the server keeps counts as infinity. For the generator's process.
    """
    return run(_beside(hostile))


async def _beside(hostile: Hostile) -> tuple[Load, list[float]]:
    kinds = list(TRICKLED.values())
    slow = [
        _trickle(hostile.plan.address, kinds[number % len(kinds)], hostile.give_up)
        for number in range(hostile.slow)
    ]
    load, ended = await asyncio.gather(sending(hostile.plan), asyncio.gather(*slow))
    return load, list(ended)


async def _trickle(address: tuple[str, int], begin: bytes, give_up: float) -> float:
    """Send a byte a second until the server closes; return after how many seconds it did."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(*address)
    closed = asyncio.ensure_future(reader.read())
    writer.write(begin)
    while not closed.done():
        if time.perf_counter() - began > give_up:
            closed.cancel()
            writer.transport.abort()
            return float("inf")
        await asyncio.wait([closed], timeout=1)
        if not closed.done() and not writer.transport.is_closing():
            writer.write(b"a")
    took = time.perf_counter() - began
    closed.exception()  # a reset is an end too
    writer.transport.abort()
    return took


def _large(study: Study, server: Server) -> None:
    answers: list[int] = []
    grown: list[float] = []
    for chunked in (False, True):
        server.reset_peak()
        before = server.memory()
        answers += study.generator.submit(send_large, server.address, chunked).result()
        grown.append((server.memory("VmHWM") - before) / MB)
    named = ", ".join(map(str, sorted(set(answers))))
    refused = sum(status == 413 for status in answers) / len(answers)
    study.claims.extend(
        [
            claim(
                f"A body of 100 MB, memory of the server, MB (answers {named})",
                max(grown),
                "below",
                16,
            ),
            claim("Share of such bodies answered 413", refused, "at least", 1),
        ]
    )


def send_large(address: tuple[str, int], chunked: bool) -> Sequence[int]:
    """Return the status that a body of 100 MB gets, 0 where there is no answer."""
    return [run(_large_body(address, chunked)) for _ in range(3)]


async def _large_body(address: tuple[str, int], chunked: bool) -> int:
    transport, answer = await asyncio.get_running_loop().create_connection(_Answer, *address)
    length = "transfer-encoding: chunked" if chunked else f"content-length: {LARGE}"
    transport.write(
        b"POST /v1/users/embed HTTP/1.1\r\nhost: localhost\r\n"
        b"content-type: application/json\r\n" + length.encode() + b"\r\n\r\n"
    )
    block = b"10000\r\n" + BLOCK + b"\r\n" if chunked else BLOCK
    gives_up, left = time.perf_counter() + 2 * LIMIT_SECONDS, LARGE // len(BLOCK)
    while not answer.ended and time.perf_counter() < gives_up:
        if left and not transport.is_closing() and transport.get_write_buffer_size() < LARGE / 100:
            transport.write(block)
            left -= 1
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(0.001)
    transport.abort()
    words = bytes(answer.said).split()
    return int(words[1]) if len(words) > 1 else 0


class _Answer(asyncio.Protocol):
    """What the server said before it closed, which it does with bytes unread: a reset follows."""

    def __init__(self) -> None:
        self.said = bytearray()
        self.ended = False

    def data_received(self, data: bytes) -> None:
        self.said += data
        self.ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
