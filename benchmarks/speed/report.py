"""What a benchmark of speed hands over: rows, claims and the machine, as JSON and as Markdown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

FORMAT = 1
Status = Literal["measured", "not comparable", "not measured"]


@dataclass(frozen=True)
class Spread:
    """The median of a figure over the rounds, with its extremes."""

    median: float
    low: float
    high: float
    rounds: tuple[float, ...]

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """Return the spread of one value a round; ValueError where there is none."""
        if not values:
            raise ValueError("a spread needs at least one round; run with rounds=3 or more")
        return Spread(median(values), min(values), max(values), tuple(values))

    def __str__(self) -> str:
        """The median and, where rounds differ, the extremes: `11.1 [10.8 14.4]`."""
        if self.low == self.high:
            return number(self.median)
        return f"{number(self.median)} [{number(self.low)} {number(self.high)}]"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm on one case. `figures` are named with their unit; `note` says why one is missing."""

    case: str
    arm: str
    status: Status
    note: str = ""
    figures: Mapping[str, Spread] = field(default_factory=dict[str, Spread])


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What was aimed at, and what was found; `holds` is None where it could not be measured."""

    what: str
    aim: str
    found: float | None
    holds: bool | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole benchmark: `command` gives it again, `machine` says where and with what it ran.

    `points` are the single runs behind the rows, where rows show a choice among them.
    """

    name: str
    command: str
    machine: Mapping[str, Any]
    config: Mapping[str, Any]
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    notes: tuple[str, ...] = ()
    points: tuple[Mapping[str, Any], ...] = ()


def write_report(report: Report, file: Path) -> None:
    """Writes `report` as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **asdict(report)}, indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def read_report(file: Path) -> Report:
    """Return what `write_report` wrote; FileNotFoundError or ValueError say what to run."""
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; make it with python -m benchmarks.speed {file.stem}")
    tree = json.loads(file.read_text(encoding="utf-8"))
    if tree.pop("format", None) != FORMAT:
        raise ValueError(f"{file} has another format; python -m benchmarks.speed {file.stem} again")
    rows = tuple(_row(row) for row in tree.pop("rows"))
    claims = tuple(Claim(**claim) for claim in tree.pop("claims"))
    notes, points = tuple(tree.pop("notes")), tuple(tree.pop("points", ()))
    return Report(rows=rows, claims=claims, notes=notes, points=points, **tree)


def markdown(report: Report) -> str:
    """Return the command, the table of all rows, and each claim with what was found."""
    names = list(dict.fromkeys(name for row in report.rows for name in row.figures))
    head = ["", "arm", *names]
    lines = [
        f"```bash\n{report.command}\n```",
        "",
        "| " + " | ".join(head) + " |",
        "| " + " | ".join(["---"] * len(head)) + " |",
    ]
    for row in report.rows:
        figures = [str(row.figures[name]) if name in row.figures else "-" for name in names]
        arm = row.arm if row.status == "measured" else f"{row.arm}: {row.status}, {row.note}"
        lines.append("| " + " | ".join([row.case, arm, *figures]) + " |")
    lines += ["", machine_line(report.machine)]
    for claim in report.claims:
        found = "not measured" if claim.found is None else number(claim.found)
        verdict = {True: "holds", False: "does not hold", None: "open"}[claim.holds]
        lines.append(f"- {claim.what}: {found}; aim {claim.aim}: {verdict}.")
    lines += [f"- {note}" for note in report.notes]
    return "\n".join(lines)


def machine_line(machine: Mapping[str, Any]) -> str:
    """Return one sentence: processor, threads, load, commit. Median [least greatest] of rounds."""
    changed = " and changes" if machine["uncommitted"] else ""
    return (
        f"Median [least greatest] over the rounds; {machine['device']}, {machine['threads']} "
        f"threads, load average {machine['load_start']} before and {machine['load_end']} after, "
        f"commit {machine['commit']}{changed}."
    )


def number(value: float) -> str:
    """Return three significant digits, thousands with commas: `0.0123`, `7.40`, `43,523`."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def _row(tree: dict[str, Any]) -> Row:
    figures = {
        name: Spread(spread["median"], spread["low"], spread["high"], tuple(spread["rounds"]))
        for name, spread in tree.pop("figures").items()
    }
    return Row(figures=figures, **tree)
