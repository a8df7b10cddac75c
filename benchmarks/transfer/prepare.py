"""What a suite stands on, made by the documented commands where it is missing."""

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.stages import Stages


def prepare(commands: Mapping[str, str]) -> list[str]:
    """Runs, in order, each command whose output is missing; gives the outputs that were made.

    `commands` are by the file or directory that the command writes last: one that is there is
    complete. SystemExit with the command where it fails, ValueError where it ends well and leaves
    no such output.
    """
    missing = [output for output in commands if not Path(output).exists()]
    if commands:
        sys.stderr.write(f"{len(commands)} outputs, {len(commands) - len(missing)} there\n")
    stages = Stages()
    for output in missing:
        stages.run(output, commands[output])
        if not Path(output).exists():
            raise ValueError(
                f"{commands[output]} ended well and left no {output}; name in `prepare` the file "
                "that it writes last"
            )
    return missing
