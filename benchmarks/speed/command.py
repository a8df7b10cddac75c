"""What the commands of this package share: the command line in, the report printed and written."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from benchmarks.speed.report import Report, markdown, write_report
from clue.settings import read_command_line

T = TypeVar("T")


def read(cls: type[T], argv: Sequence[str], description: str | None) -> T:
    """Gives the config of the command line; a wrong one ends the process with status 2."""
    return read_command_line(cls, argv, description=description or "")


def finish(measured: tuple[Report, Path], argv: Sequence[str]) -> None:
    """Writes the report, whose command is that which made it, and prints its table."""
    report, out = measured
    report = replace(report, command=" ".join([report.command, *argv]))
    write_report(report, out)
    sys.stdout.write(markdown(report) + "\n")
