"""Command: a scaling study, `python -m benchmarks.scaling WHAT CONFIG_OR_TABLE [key=value ...]`.

    sweep       trains the runs of a grid and writes the table of them
    fit         every law of a table, with intervals and what speaks against it
    predict     what the law says of runs that are not trained yet, written once and hashed
    verify      the prediction beside the runs, once they are there
    plan        what to train for a budget: plan TABLE --budget 1e18
    check       a plan beside the run that it asked for, once that is trained
    compare     what one factor of a sweep is worth, run beside run, with paired differences
    transfer    the runs on tasks of transfer, and whether a lower loss meant a better score
    reference   the fitter on published runs whose coefficients are known

`WHAT --help` prints the keys and their defaults. A name that ends in .parquet is the table of runs.
"""

import sys
from collections.abc import Callable, Sequence

from clue.config import user_errors

Command = Callable[[Sequence[str]], None]


def command(name: str) -> tuple[Command, str]:
    """Return a command and its key for the table; ValueError for a name that is none of them.

    Imports are late: a sweep needs torch and no SciPy, a fit the reverse.
    """
    match name:
        case "sweep":
            from benchmarks.scaling.sweep import run

            return run.main, "table"
        case "fit":
            from benchmarks.scaling.fit import law_summary

            return law_summary.main, "table"
        case "predict":
            from benchmarks.scaling.predict import predict

            return predict.main, "fit.table"
        case "verify":
            from benchmarks.scaling.predict import verify

            return verify.main, "fit.table"
        case "plan":
            from benchmarks.scaling.predict import plan

            return plan.main, "fit.table"
        case "check":
            from benchmarks.scaling.predict import check_plan

            return check_plan.main, "table"
        case "compare":
            from benchmarks.scaling import compare

            return compare.main, "table"
        case "transfer":
            from benchmarks.scaling.predict import downstream

            return downstream.main, "table"
        case "reference":
            from benchmarks.scaling.validation import reference

            return reference.main, "table"
        case _:
            raise ValueError(
                f"no command {name!r}; there are sweep, fit, predict, verify, plan, check, "
                "compare, transfer and reference"
            )


def arguments(argv: Sequence[str], table: str) -> list[str]:
    """Return the words with TABLE.parquet and `--budget X` as `key=value`."""
    words: list[str] = []
    given = iter(argv)
    for word in given:
        if word == "--budget":
            words.append(f"budget={next(given, '')}")
        elif word.startswith("--budget="):
            words.append(word.removeprefix("--"))
        elif word.endswith(".parquet") and "=" not in word:
            words.append(f"{table}={word}")
        else:
            words.append(word)
    return words


def main(argv: Sequence[str]) -> None:
    """Runs the command that `argv` names; a refusal ends the process with status 2."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(__doc__ or "")
        return
    with user_errors():
        run, table = command(argv[0])
        run(arguments(argv[1:], table))


if __name__ == "__main__":
    main(sys.argv[1:])
