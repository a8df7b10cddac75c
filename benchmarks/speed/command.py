"""What the commands of this package share: the command line in, the report printed and written."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.speed.report import Report, markdown, write_report
from clue.config import read_command_line

T = TypeVar("T")


def read(cls: type[T], argv: Sequence[str], description: str | None) -> T:
    """Return the config of the command line; a wrong one ends the process with status 2."""
    return read_command_line(cls, argv, description=description or "")


def recorded(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass for a report.

    Of an absolute path the name alone: where things lie on one machine is no part of a result.
    """
    return {
        key: (value.name if value.is_absolute() else str(value))
        if isinstance(value, Path)
        else value
        for key, value in asdict(config).items()
    }


def finish(measured: tuple[Report, Path], argv: Sequence[str]) -> None:
    """Writes the report, whose command is that which made it, and prints its table.

    Keys that are absolute paths are left out of the command, as `recorded` leaves them out.
    """
    report, out = measured
    keys = [key for key in argv if not Path(key.partition("=")[2]).is_absolute()]
    report = replace(report, command=" ".join([report.command, *keys]))
    write_report(report, out)
    sys.stdout.write(markdown(report) + "\n")
