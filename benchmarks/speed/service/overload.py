"""More than the service can do: what it still answers in time, and how fast it refuses the rest."""

from benchmarks.speed.report import claim
from benchmarks.speed.service.encode import embeds
from benchmarks.speed.service.load import Load, Stream, request
from benchmarks.speed.service.process import Server, say
from benchmarks.speed.service.study import Study

TIMES = (0.5, 1, 2, 5)
PROBES = 20.0  # of /livez a second
MB = 1e6


def measure(study: Study, server: Server, peak: float, deadline: float) -> None:
    """Add the rows and claims: single-user requests at parts and multiples of `peak` a second.

    Each says that it is worth nothing after `deadline` seconds, and an answer counts up to then.
    """
    seconds, rounds = study.seconds, study.rounds
    wanted = str(max(1, round(1000 * deadline)))
    requests = embeds([[user] for user in study.users], "base64", x_request_timeout_ms=wanted)
    probe = Stream(requests=[request("GET", "/livez")], rate=PROBES, connections=50)
    loads: dict[float, list[Load]] = {times: [] for times in TIMES}
    memory: dict[float, list[float]] = {times: [] for times in TIMES}
    for number in range(rounds):
        for times in TIMES:
            server.reset_peak()
            load = study.send(
                server, {"embed": Stream(requests=requests, rate=times * peak), "livez": probe}
            )
            loads[times].append(load)
            memory[times].append(server.memory("VmHWM") / MB)
        say(f"overload: round {number + 1} of {rounds} done")
    good: dict[float, list[float]] = {}
    for times, made in loads.items():
        embed = [load.answers["embed"] for load in made]
        good[times] = [each.rate(seconds / 10, seconds, deadline) for each in embed]
        refused = [each.count(429) / seconds for each in embed]
        study.timed(
            f"overload, peak {peak:,.0f} requests/s",
            f"{times:g}x the peak, in time",
            made,
            "embed",
            requests=good[times],
            part=[rate / peak for rate in good[times]],
            refused=refused,
            refused_p99=[each.quantile_ms(0.99, 429) for each in embed] if all(refused) else [],
            livez=[load.answers["livez"].quantile_ms(0.99) for load in made],
            errors=[len(each.status) - each.count(200, 429, 504) for each in embed],
            memory=memory[times],
        )
    _claims(study, loads[TIMES[-1]], memory, max(0.0, _median(good[TIMES[-1]]) / peak))


def _claims(study: Study, most: list[Load], memory: dict[float, list[float]], part: float) -> None:
    embed = [load.answers["embed"] for load in most]
    refused = sum(each.count(429) for each in embed)
    named = sum(int(each.retry_after[each.status == 429].sum()) for each in embed)
    slowest = _median([each.quantile_ms(0.99, 429) for each in embed]) if refused else None
    livez = _median([load.answers["livez"].quantile_ms(0.99) for load in most])
    grown = _median(memory[TIMES[-1]]) - _median(memory[TIMES[0]])
    at = f"at {TIMES[-1]:g}x the peak"
    study.claims.extend(
        [
            claim(f"Answers in time {at}, part of the peak", part, "at least", 0.9),
            claim(f"Refusals {at}, p99 ms", slowest, "below", 20),
            claim(
                f"Share of {refused:,} refusals {at} with Retry-After",
                named / refused if refused else None,
                "at least",
                1,
            ),
            claim(f"/livez {at}, p99 ms", livez, "below", 50),
            claim(
                f"Peak of the memory {at}, above that at half the peak, MB", grown, "at most", 100
            ),
        ]
    )


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
