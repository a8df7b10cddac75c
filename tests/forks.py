"""Programs that ask what is imported, each a fork of one fresh interpreter.

What all of them import anyhow is imported once: torch takes 2 s of a core.
"""

import json
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]  # not that of tests.conftest, which imports pytest


def forks(
    first: str, codes: Sequence[str], *, flags: Sequence[str] = (), cwd: Path = ROOT
) -> list[CompletedProcess[str]]:
    """Run each `python FLAGS -c CODE`, one after the other, in an interpreter that ran `first`."""
    with TemporaryDirectory() as folder:
        words = [sys.executable, *flags, "-m", "tests.forks", folder, first, *codes]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said = [
            [(Path(folder) / f"{stream}{number}").read_text() for stream in (1, 2)]
            for number in range(len(codes))
        ]
    statuses = json.loads(done.stdout)
    return [
        CompletedProcess(code, status, *each)
        for code, status, each in zip(codes, statuses, said, strict=True)
    ]


def _run(code: str, files: Sequence[str]) -> None:
    status = 1
    try:
        for stream, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream)
        exec(code, {"__name__": "__main__"})
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Run the command line: a folder for what is said, what runs once, the programs."""
    folder, first, *codes = sys.argv[1:]
    exec(first, {"__name__": "__main__"})
    statuses: list[int] = []
    for number, code in enumerate(codes):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of a BLAS
            child = os.fork()
        if child == 0:
            _run(code, [f"{folder}/{stream}{number}" for stream in (1, 2)])
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.stdout.write(json.dumps(statuses))


if __name__ == "__main__":
    main()
