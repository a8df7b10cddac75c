"""What a suite stands on, made by the documented commands where it is missing."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.suite.pipeline import Stages


def prepare(commands: Mapping[str, str], runs: Sequence[Path]) -> list[str]:
    """Runs, in order, each command whose output is missing; gives the outputs that were made.

    `commands` are by the file or directory that the command writes last: one that is there is
    complete. One in RUN/checkpoints is asked for where RUN is among the `runs` that are measured,
    or is named by a later command that is asked for: nobody who measures one seed trains three.
    SystemExit with the command where it fails,
    ValueError where it ends well and leaves no such output.
    """
    asked: list[str] = []
    for output in reversed(list(commands)):
        path = Path(output)
        named = (commands[each].split() for each in asked)
        wanted = any(run in path.parents for run in runs) or any(
            word.endswith(f"={path.parents[1]}") for words in named for word in words
        )
        if "checkpoints" not in path.parts or wanted:
            asked.insert(0, output)
    missing = [output for output in asked if not Path(output).exists()]
    if asked:
        sys.stderr.write(f"{len(asked)} outputs, {len(asked) - len(missing)} there\n")
    stages = Stages()
    for output in missing:
        stages.run(output, commands[output])
        if not Path(output).exists():
            raise ValueError(
                f"{commands[output]} ended well and left no {output}; name in `prepare` the file "
                "that it writes last"
            )
    return missing
