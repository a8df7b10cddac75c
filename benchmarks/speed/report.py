"""What a benchmark of speed reports: rows, claims and the machine, as JSON and as Markdown."""

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

FORMAT = 1
COMPARISONS = {"at least": operator.ge, "at most": operator.le, "below": operator.lt}


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
        """Return the median and, where rounds differ, the extremes: `11.1 [10.8 14.4]`."""
        if self.low == self.high:
            return number(self.median)
        return f"{number(self.median)} [{number(self.low)} {number(self.high)}]"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm on one case. `figures` are named with their unit; `note` says why one is missing."""

    case: str
    arm: str
    status: Literal["measured", "not comparable", "not measured"] = "measured"
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

    name: str = ""
    command: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict[str, Any])
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rows: Sequence[Row]
    claims: Sequence[Claim]
    notes: Sequence[str] = ()
    points: Sequence[Mapping[str, Any]] = ()


def claim(what: str, value: float | None, aim: str, limit: float, note: str = "") -> Claim:
    """Return the claim that `value` is "at least", "at most" or "below" the limit; None is open."""
    holds = None if value is None else COMPARISONS[aim](value, limit)
    return Claim(what=what, aim=f"{aim} {limit:g}{note}", found=value, holds=holds)


def plain(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON holds them."""
    return json.loads(json.dumps(asdict(config), default=str))


def recorded(config: Any) -> dict[str, Any]:
    """Return the fields of a config for a report.

    Of an absolute path the name alone: where things lie on one machine is no part of a result.
    """
    return {
        key: Path(value).name if isinstance(value, str) and value.startswith("/") else value
        for key, value in plain(config).items()
    }


def write_report(report: Report, file: Path) -> None:
    """Write `report` as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **asdict(report)}, indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def read_report(file: Path) -> Report:
    """Return what `write_report` wrote; FileNotFoundError or ValueError say what to run."""
    from pydantic import TypeAdapter  # here: the rivals' arms import this file without it

    if not file.is_file():
        raise FileNotFoundError(f"no {file}; make it with python -m benchmarks.speed {file.stem}")
    tree = json.loads(file.read_text(encoding="utf-8"))
    if tree.pop("format", None) != FORMAT:
        raise ValueError(f"{file} has another format; python -m benchmarks.speed {file.stem} again")
    return TypeAdapter(Report).validate_python(tree)


def markdown(report: Report) -> str:
    """Return the command, the table of all rows, and each claim with what was found."""
    names = list(dict.fromkeys(name for row in report.rows for name in row.figures))
    table = [["", "arm", *names], ["---"] * (2 + len(names))]
    for row in report.rows:
        arm = row.arm if row.status == "measured" else f"{row.arm}: {row.status}, {row.note}"
        table.append([row.case, arm, *(str(row.figures.get(name, "-")) for name in names)])
    lines = [f"```bash\n{report.command}\n```", ""]
    lines += [f"| {' | '.join(cells)} |" for cells in table]
    lines += ["", machine_line(report.machine)]
    for one in report.claims:
        value = "not measured" if one.found is None else number(one.found)
        verdict = {True: "holds", False: "does not hold", None: "open"}[one.holds]
        lines.append(f"- {one.what}: {value}; aim {one.aim}: {verdict}.")
    return "\n".join([*lines, *(f"- {note}" for note in report.notes)])


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
    if abs(value) < 1:
        return f"{value:.3g}"
    return f"{value:,.{max(0, 3 - len(str(int(abs(value)))))}f}"
