"""The short forms of `serve` and `soak`: truths of each part, over one server and a tiny model."""

import re
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import orjson
import pytest

from benchmarks.speed import serve, soak
from benchmarks.speed.report import Claim
from benchmarks.speed.service import bare, encode, hostile, known, overload, process, rebuild
from benchmarks.speed.service.load import Answers, Stream
from benchmarks.speed.service.process import Server
from benchmarks.speed.service.study import Study
from tests.conftest import TinyRun


@dataclass
class Running:
    """A server with a store and short deadlines, and the study that loads it."""

    study: Study
    server: Server
    encoder: ThreadPoolExecutor

    def fresh(self) -> Study:
        return replace(self.study, rows=[], claims=[], notes=[])


@pytest.fixture(scope="module")
def running(
    tiny_run: TinyRun, tiny_index: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Running]:
    root = tmp_path_factory.mktemp("study")
    index = process.copied(tiny_index, root / "index")
    # threads instead of processes: what is asked here is what they do, not how fast
    with ThreadPoolExecutor(1) as generator, ThreadPoolExecutor(1) as encoder:
        study = Study(
            checkpoint=tiny_run.run,
            index=index,
            seconds=0.4,
            rounds=1,
            root=root,
            users=bare.users_of(index, 64, events=20),
            generator=generator,
        )
        encoder.submit(bare.begin, tiny_run.run, index).result()
        store = str(root / "store")
        with study.serving("server", header_seconds="1", body_seconds="1", store=store) as server:
            yield Running(study, server, encoder)


def truths(claims: list[Claim], *begins: str) -> list[bool | None]:
    chosen = [claim for begin in begins for claim in claims if claim.what.startswith(begin)]
    assert len(chosen) == len(begins), [claim.what for claim in claims]
    return [claim.holds for claim in chosen]


def test_http_answers_what_the_bare_encoder_does_and_each_arm_has_its_numbers(
    running: Running,
) -> None:
    study = running.fresh()
    peak = encode.measure(study, running.server, running.encoder)
    assert peak > 0
    assert truths(study.claims, "|HTTP - bare", "Batch invariance") == [True, True]
    assert len(study.rows) == 5
    for row in study.rows:
        figures = {name: spread.median for name, spread in row.figures.items()}
        assert figures["users/s"] > 0 and figures["part of it"] > 0, row
        assert figures["processor ms each"] > 0, row
    # vectors of another model are no answer: then nothing is timed
    other = replace(study, users=[[dict(event, text="tea") for event in u] for u in study.users])
    wrong = encode.batched(other.users)
    truth = np.concatenate(running.encoder.submit(bare.vectors, wrong).result())
    ours = np.concatenate([encode.asked(study, running.server, u) for u in [study.users[:32]]])
    assert np.abs(truth[:32] - ours).max() > encode.TOLERANCE


def test_under_overload_all_is_answered_in_time_or_refused(running: Running) -> None:
    study = running.fresh()
    overload.measure(study, running.server, 30, deadline=1.0)
    assert [row.arm for row in study.rows] == [f"{t:g}x the peak, in time" for t in overload.TIMES]
    for row in study.rows:
        assert row.figures["errors"].median == 0, row
        assert row.figures["/livez, p99 ms"].median > 0 and row.figures["RSS MB"].median > 50
    assert study.rows[0].figures["requests/s"].median > 0
    assert truths(study.claims, "Peak of the memory") == [True]


def test_who_would_wait_too_long_is_refused_unread_and_may_come_again(running: Running) -> None:
    # 64 at once who each wait for 20 ms: as many as are answered in half of that are let in
    users = [[user] for user in running.study.users]
    requests = encode.embeds(users, "base64", x_request_timeout_ms="20")
    many = Stream(requests=requests, connections=64, keep=10**6)
    answers = running.study.send(running.server, {"many": many}, 1.0).answers["many"]
    assert answers.count(200, 429, 504) == len(answers.status)
    assert answers.count(429) > 64  # a refused connection lives on, and asks again
    refused = answers.status == 429
    assert answers.retry_after[refused].all()
    assert not answers.retry_after[answers.status == 200].any()
    body = orjson.loads(answers.bodies[int(np.flatnonzero(refused)[0])])
    assert (body["type"], body["status"]) == ("urn:clue:problem:queue-full", 429)
    metrics = httpx.get(f"{running.server.url}/metrics").text
    (counted,) = re.findall(r'clue_rejected_total{reason="queue-full"} ([\d.e+]+)', metrics)
    assert float(counted) >= answers.count(429)


def test_slow_connections_are_freed_and_100_mb_are_refused(running: Running) -> None:
    study = running.fresh()
    hostile.measure(study, running.server, 20, limit=1.0)
    freed = f"Share of {hostile.SLOW} slow connections freed"
    aims = (freed, "A body of 100 MB", "Share of such bodies answered 413")
    assert truths(study.claims, *aims) == [True, True, True], study.claims
    assert [row.figures["errors"].median for row in study.rows] == [0, 0]


def test_a_stored_user_is_read_beside_an_empty_route(running: Running) -> None:
    study = running.fresh()
    # the same server twice: what is compared is not the matter here
    known.compare(study, running.server, running.server)
    assert [row.arm for row in study.rows] == [known.EMPTY, known.VECTOR, known.OCTETS, known.WHOLE]
    assert all(row.figures["requests/s"].median > 0 for row in study.rows)


def answers_of(*ids: list[str]) -> Answers:
    bodies = [
        orjson.dumps({"index": f"g{n}", "data": [{"user_id": one} for one in each]})
        for n, each in enumerate(ids)
    ]
    status = np.full(len(ids), 200)
    zeros = np.zeros(len(ids))
    return Answers(
        due=zeros,
        seconds=zeros,
        status=status,
        retry_after=zeros > 0,
        request=np.zeros(len(ids), np.int64),
        bodies=bodies,
    )


def test_an_answer_of_two_generations_is_seen() -> None:
    whole, twice, gone = ["stored-0", "a"], ["stored-0", "a", "a"], ["a", "b"]
    assert rebuild.check(answers_of(whole)) == (0, 1, {"g0"})
    assert rebuild.check(answers_of(whole, twice, gone)) == (2, 3, {"g0", "g1", "g2"})


def test_a_soak_has_its_slopes_and_its_figure(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "SAMPLE_SECONDS", 0.1)
    config = soak.Config(
        checkpoint=running.study.checkpoint,
        index=running.study.index,
        minutes=0.03,
        warm_up=0.01,
        out=tmp_path / "soak.json",
    )
    study = replace(running.fresh(), seconds=60 * config.minutes)
    report = soak.soaked(config, study, running.server)
    assert truths(list(report.claims), "Errors of") == [True], report.claims
    assert all(claim.found is not None for claim in report.claims)
    assert len(report.rows) == 3
    assert all(row.figures["RSS MB"].median > 50 for row in report.rows)
    assert (tmp_path / "soak.svg").read_text().startswith("<?xml")


def test_the_least_of_each_minute_shows_what_is_kept() -> None:
    """A saw of one minute over a line of two a minute."""
    minutes = np.arange(0, 20, 0.1) + 0.05
    saw = 100 + 2 * np.floor(minutes) + 50 * (minutes % 1)
    middles, least = soak.least_by_minute(minutes.tolist(), saw.tolist())
    assert middles == pytest.approx(np.arange(20) + 0.5)
    assert soak.slope(middles, least, after=2) == pytest.approx(20)


def test_a_slope_is_that_of_the_line_after_the_warm_up() -> None:
    minutes = [0.0, 1.0, 2.0, 3.0, 4.0]
    assert soak.slope(minutes, [100, 50, 10, 10.5, 11.0], after=1.5) == pytest.approx(5.0)
    with pytest.raises(ValueError, match="give more minutes"):
        soak.slope(minutes, minutes, after=3.5)


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="parts has 'speed'"):
        serve.Config(checkpoint=tmp_path, index=tmp_path, parts=("speed",))
    with pytest.raises(ValueError, match=r"warm_up 5\.0 is not below"):
        soak.Config(checkpoint=tmp_path, index=tmp_path, minutes=2.0)
