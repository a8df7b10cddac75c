"""Arms in processes of their own, interleaved, and the gate: only equal results are compared."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.external.environments import ROOT, ArmFailed, Rival, RivalMissing, python_of
from benchmarks.speed.report import Row, Spread

LOSS_GATE = 1e-5  # relative, in fp32
GRADIENT_GATE = 1e-4

Figures = Callable[[Mapping[str, Any]], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
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
    """Arms on the cases of one benchmark; collects the rows and all that the arms told."""

    rounds: int
    figures: Figures
    rows: list[Row] = field(default_factory=list[Row])
    results: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])

    def run(
        self,
        case: str,
        arms: Sequence[Arm],
        gates: Sequence[Mapping[str, Any]] = (),
        *,
        equal: bool = True,
    ) -> None:
        """Adds a row for each arm: `rounds` fresh processes each, in turn A B ... A B ...

        `gates` change the spec into cases that are run first, without timing. The first arm that
        works is the reference: an arm whose loss or gradient norm differs from its on a gate, or in
        a timed round where `equal`, is "not comparable". An arm that fails is "not measured".
        """
        failed: dict[str, str] = {}
        checked: dict[str, list[Mapping[str, Any]]] = {arm.name: [] for arm in arms}
        timed: dict[str, list[Mapping[str, Any]]] = {arm.name: [] for arm in arms}
        turns = [({**gate, "repeats": 0}, checked) for gate in gates]
        turns += [({}, timed)] * self.rounds
        for number, (change, found) in enumerate(turns):
            for arm in arms:
                if arm.name in failed:
                    continue
                try:
                    found[arm.name].append({**run(arm, change), "case": case})
                except (RivalMissing, ArmFailed) as error:
                    failed[arm.name] = str(error)
                    sys.stderr.write(f"{case}, {arm.name}: {error}\n")
            sys.stderr.write(f"{case}: turn {number + 1} of {len(turns)} done\n")
        if equal:
            checked = {arm.name: checked[arm.name] + timed[arm.name] for arm in arms}
        reference = next((arm.name for arm in arms if arm.name not in failed), "")
        for name in timed:
            self.results += timed[name]
            if name in failed:
                row = Row(case=case, arm=name, status="not measured", note=failed[name])
            else:
                wrong = difference(checked[name], checked[reference])
                row = Row(
                    case=case,
                    arm=name,
                    status="not comparable" if wrong else "measured",
                    note=wrong,
                    figures=self._spreads(timed[name]),
                )
            self.rows.append(row)

    def _spreads(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
        shown = [self.figures(result) for result in results]
        return {name: Spread.of([figures[name] for figures in shown]) for name in shown[0]}

    def median(self, case: str, arm: str, figure: str) -> float | None:
        """Return a row's median of a figure; None where it was not measured or not comparable."""
        for row in self.rows:
            if (row.case, row.arm, row.status) == (case, arm, "measured"):
                return row.figures[figure].median
        return None


def difference(mine: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]]) -> str:
    """Says where results differ from the reference's beyond the gate; empty where they agree."""
    limits = {"loss": LOSS_GATE, "grad_norm": GRADIENT_GATE}
    for one, other in zip(mine, reference, strict=True):
        for name, limit in limits.items():
            error = abs(one[name] - other[name]) / abs(other[name])
            if not error <= limit:  # NaN is an error too
                return f"{name} {one[name]:.7g} is not {other[name]:.7g} (relative {error:.1e})"
    return ""


def run(arm: Arm, change: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what `arm` tells of its spec with `change` laid over it.

    Raises RivalMissing where the rival cannot be installed and ArmFailed where the arm fails.
    """
    python = Path(sys.executable) if arm.rival is None else python_of(arm.rival)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "figures.json"
        spec = json.dumps({**arm.spec, **change})
        # The checkout is the working directory, so that rivals' environments find this code too.
        command = [str(python), "-W", "ignore", "-m", arm.module, spec, str(out)]
        done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode or not out.is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            said = lines[-1] if lines else "nothing"
            raise ArmFailed(f"status {done.returncode}: {said[:300]}")
        return json.loads(out.read_text(encoding="utf-8"))
