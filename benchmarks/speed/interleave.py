"""Arms in turn, A B A B, in processes of their own or here; only equal results are compared."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.external.environments import ROOT, ArmFailed, Rival, RivalMissing, python_of
from benchmarks.external.machine import merge_versions
from benchmarks.speed.report import Claim, Report, Row, Spread

Result = Mapping[str, Any]
Times = Mapping[str, Mapping[str, Sequence[float]]]  # arm -> clock -> seconds of each round
GATE = {"loss": 1e-5, "grad_norm": 1e-4}  # relative, in fp32


@dataclass(frozen=True)
class Arm:
    """One way to do the work: `python -m MODULE SPEC OUT`, where MODULE ends in `run_arm`.

    A `rival`'s arm runs in the rival's environment, the others in ours.
    """

    name: str
    module: str
    spec: Mapping[str, Any]
    rival: Rival | None = None


@dataclass
class Comparison:
    """Arms on the cases of one benchmark: the rows, and all results behind them.

    A result has `loss` and `grad_norm`, the `figures` of its row, by name, and `versions`.
    """

    rounds: int
    rows: list[Row] = field(default_factory=list[Row])
    results: list[Result] = field(default_factory=list[Result])

    def run(
        self, case: str, arms: Sequence[Arm], gates: Sequence[Result] = (), *, equal: bool = True
    ) -> None:
        """Add a row for each arm: `rounds` fresh processes each, in turn A B ... A B ...

        `gates` change the spec into cases that are run first, without timing. The first arm that
        works is the reference: an arm whose loss or gradient norm differs from its on a gate, or in
        a timed round where `equal`, is "not comparable". An arm that fails is "not measured".
        """
        failed: dict[str, str] = {}
        gated: dict[str, list[Result]] = {arm.name: [] for arm in arms}
        timed: dict[str, list[Result]] = {arm.name: [] for arm in arms}
        turns = [({**gate, "repeats": 0}, gated) for gate in gates] + [({}, timed)] * self.rounds
        for number, (change, results) in enumerate(turns, 1):
            for arm in arms:
                if arm.name in failed:
                    continue
                try:
                    results[arm.name].append({**run(arm, change), "case": case})
                except (RivalMissing, ArmFailed) as error:
                    failed[arm.name] = str(error)
                    sys.stderr.write(f"{case}, {arm.name}: {error}\n")
            sys.stderr.write(f"{case}: turn {number} of {len(turns)} done\n")
        checked = {name: gated[name] + timed[name] * equal for name in timed}
        reference = next((name for name in timed if name not in failed), "")
        for name, results in timed.items():
            self.results += results
            if name in failed:
                row = Row(case=case, arm=name, status="not measured", note=failed[name])
            else:
                wrong = difference(checked[name], checked[reference])
                status = "not comparable" if wrong else "measured"
                rounds = [result["figures"] for result in results]
                figures = {key: Spread.of([one[key] for one in rounds]) for key in rounds[0]}
                row = Row(case=case, arm=name, status=status, note=wrong, figures=figures)
            self.rows.append(row)

    def median(self, case: str, arm: str, figure: str) -> float | None:
        """Return a row's median of a figure; None where it was not measured or not comparable."""
        return self.medians(case, figure).get(arm)

    def medians(self, case: str, figure: str) -> dict[str, float]:
        """Return the medians of a figure by arm, those that were measured and are comparable."""
        rows = [row for row in self.rows if (row.case, row.status) == (case, "measured")]
        return {row.arm: row.figures[figure].median for row in rows}

    def ratio(self, case: str, figure: str, arm: str, other: str) -> float | None:
        """Return what part of `other`'s median an arm's is; None where one is missing."""
        medians = self.medians(case, figure)
        return medians[arm] / medians[other] if {arm, other} <= set(medians) else None

    def report(self, claims: Sequence[Claim], notes: Sequence[str] = ()) -> Report:
        """Return the report of all rows."""
        versions = merge_versions([result["versions"] for result in self.results])
        return Report(rows=self.rows, claims=claims, notes=notes, machine={"versions": versions})


def difference(
    results: Sequence[Result], reference: Sequence[Result], gate: Mapping[str, float] = GATE
) -> str:
    """Return where results differ from the reference's beyond the gate; empty where they agree."""
    for one, other in zip(results, reference, strict=True):
        for name, limit in gate.items():
            error = abs(one[name] - other[name]) / abs(other[name])
            if not error <= limit:  # NaN is an error too
                return f"{name} {one[name]:.7g} is not {other[name]:.7g} (relative {error:.1e})"
    return ""


def run(arm: Arm, change: Result) -> Result:
    """Return the result of an arm's process for its spec with `change` laid over it.

    Raise RivalMissing where the rival cannot be installed and ArmFailed where the arm fails.
    """
    python = Path(sys.executable) if arm.rival is None else python_of(arm.rival)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "figures.json"
        spec = json.dumps({**arm.spec, **change})
        # The checkout is the working directory, so that rivals' environments find this code too.
        command = [str(python), "-W", "ignore", "-m", arm.module, spec, str(out)]
        done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode or not out.is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
            raise ArmFailed(f"status {done.returncode}: {lines[-1][:300]}")
        return json.loads(out.read_text(encoding="utf-8"))


def interleaved(
    arms: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Return each arm's wall and processor seconds of `rounds` calls in this process, in turn.

    A call before the first, whose time is not kept, warms each arm up.
    """
    for arm in arms.values():
        arm()
    times: dict[str, dict[str, list[float]]] = {n: {"processor": [], "wall": []} for n in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            wall, processor = time.perf_counter(), time.process_time()
            arm()
            times[name]["processor"].append(time.process_time() - processor)
            times[name]["wall"].append(time.perf_counter() - wall)
    return times


def clock_figures(times: Times, arm: str, reference: str) -> dict[str, Spread]:
    """Return an arm's seconds by both clocks and, round by round, what part of the reference's."""
    figures = {f"{clock} s": Spread.of(seconds) for clock, seconds in times[arm].items()}
    if arm != reference:
        for clock, seconds in times[arm].items():
            ratios = [a / b for a, b in zip(seconds, times[reference][clock], strict=True)]
            figures[f"{clock} / {reference}"] = Spread.of(ratios)
    return figures
