"""Command: a scaling law of one's own logs, and what to train by it."""

import sys
from collections.abc import Sequence

from benchmarks.law.law import law, refuse_elsewhere
from benchmarks.law.law_config import LawConfig, read_arguments
from benchmarks.law.planner import plan_command, read_plan
from benchmarks.scaling.sweep.run import stopping
from clue.config import describe, user_errors

HELP = """What would a larger model, more data or more compute buy on your logs, and what to train?

    clue law my.parquet service=shop              laws/my/law.html, in 45 minutes of all cores
    clue law my.parquet columns.user_id=customer minutes=25 jobs=1
    clue law corpora/my                           a log that is prepared already
    clue law configs/prepare/my.yaml              as a YAML of clue prepare says
    clue law plan laws/my hours=8 device=h100     what to train, and the command for it
    clue law plan laws/my money=100 price=2.5 device=a100
    clue law plan laws/my flops=1e15

It prepares the log, times a few steps of each size, and trains a ladder of small models that fits
the minutes: several widths, each at several lengths. The largest is held out. Its loss is predicted
from the others and hashed before it is trained, so that you see how far the law can be trusted on
your logs. What a log must have: a few thousand windows of events, and 500 users to ask. A log that
is too small is refused before anything is trained.

It may be stopped at any time: the same command goes on. laws/NAME holds law.html, law.json,
prediction.json, runs.parquet and the recipe, pretrain.yaml. Run it in a clone of the repository.

Keys beside those of clue prepare (clue prepare --help), and their defaults:
"""


def main(argv: Sequence[str]) -> None:
    """Run the command line; SIGTERM and Ctrl-C let the running models save a checkpoint."""
    if argv and argv[0] == "plan":
        sys.stdout.write(plan_command(read_plan(argv[1:])))
        return
    if not argv or {"-h", "--help"} & {*argv}:
        sys.stdout.write(HELP)
        sys.stdout.writelines(f"  {line}\n" for line in describe(LawConfig))
        return
    stopping()
    with user_errors():
        config, prepared = read_arguments(argv)
        refuse_elsewhere()
        sys.stdout.write(law(config, prepared))


if __name__ == "__main__":
    main(sys.argv[1:])
