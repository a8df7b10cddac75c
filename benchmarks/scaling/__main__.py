"""Command: a scaling study, `python -m benchmarks.scaling WHAT CONFIG_OR_TABLE [key=value ...]`.

    gate        whether one learning rate suits all sizes; trains the runs that say so
    sweep       trains the runs of a grid and writes the table of them
    rates       the runs of each size at its own best rate, where no rate suits all
    collapse    whether all sizes learn alike, before a law of them is believed
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

import importlib
import sys
from collections.abc import Callable, Sequence

from clue.config import user_errors

COMMANDS = {  # the module of each, imported late for its torch, and the key of its table
    "gate": ("sweep.gate", "table"),
    "sweep": ("sweep.run", "table"),
    "rates": ("fit.own_rates", "table"),
    "collapse": ("fit.collapse", "table"),
    "fit": ("fit.law_summary", "table"),
    "predict": ("predict.predict", "fit.table"),
    "verify": ("predict.verify", "fit.table"),
    "plan": ("predict.plan", "fit.table"),
    "check": ("predict.check_plan", "table"),
    "compare": ("compare", "table"),
    "transfer": ("predict.downstream", "table"),
    "reference": ("validation.reference", "table"),
}


def command(name: str) -> tuple[Callable[[Sequence[str]], None], str]:
    """Return a command and its key for the table; ValueError for a name that is none of them."""
    if name not in COMMANDS:
        raise ValueError(f"no command {name!r}; there are {', '.join(COMMANDS)}")
    module, table = COMMANDS[name]
    return importlib.import_module(f"benchmarks.scaling.{module}").main, table


def arguments(argv: Sequence[str], table: str) -> list[str]:
    """Return the words with TABLE.parquet and `--budget X` as `key=value`."""
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word == "--budget":
            words.append(f"budget={next(rest, '')}")
        elif word.endswith(".parquet") and "=" not in word:
            words.append(f"{table}={word}")
        else:
            words.append(word.removeprefix("--") if word.startswith("--budget=") else word)
    return words


def main(argv: Sequence[str]) -> None:
    """Run the command that `argv` names; a refusal ends the process with status 2."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(__doc__ or "")
        return
    with user_errors():
        run, table = command(argv[0])
        run(arguments(argv[1:], table))


if __name__ == "__main__":
    main(sys.argv[1:])
