"""The console script `clue`: every command by its name.

A command is the module that `python -m` runs too; this file only finds it. Modules stand here as
text: `clue --help` then imports none of them, and the library needs neither the service nor the
benchmarks, which stand on it (the import contracts of pyproject.toml).
"""

import difflib
import os
import runpy
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import NoReturn

HELP = """clue: one vector per user, learned from behaviour logs of many services

    clue COMMAND [CONFIG.yaml] [key=value ...]      clue COMMAND --help says the keys

A minute from nothing, on a synthetic world:
    clue pretrain steps=50                          makes data/, corpora/demo and runs/demo
    clue embed checkpoint=runs/demo corpus=corpora/demo out=demo.parquet
    python -c 'import clue; print(clue.load("runs/demo").encode({"shop": ["a cast iron pan"]}))'

A log of your own has one row per event (CSV, Parquet or JSON lines):
    user_id,service,item_id,timestamp,text
    u1,shop,i7,1717171717,cast iron pan
    u1,news,n3,1717171800,how to bake bread
Its four columns are user, service, item and time; a text column says what the item is. Other names
go into columns.user_id=..., and a log of one service has service=NAME instead of the column:
    clue prepare my.csv service=shop                makes corpora/my
    clue pretrain name=my corpus=corpora/my
    clue embed checkpoint=runs/my corpus=corpora/my out=my.parquet

What would a larger model, more data or more compute buy on your logs? In a clone of the repository:
    clue law my.csv service=shop                    makes laws/my/law.html in 45 minutes
    clue law plan laws/my hours=8 device=h100

On several processes or devices the options of `accelerate launch` come first, each with its value
behind an equals sign; the rest is as ever:
    clue pretrain --num_processes=8 name=my corpus=corpora/my

Commands:
"""
COMMANDS = {
    "prepare": ("clue.prepare", "logs -> a corpus"),
    "pretrain": ("clue.pretrain", "a corpus -> a trained encoder, under runs/"),
    "embed": ("clue.embed", "an encoder and a corpus or logs -> a table of user vectors"),
    "export": ("clue.export", "an encoder -> a folder for the Hugging Face Hub"),
    "synthetic": ("clue.synthetic.world", "logs of a made-up world with a known truth"),
    "index": ("serving.build_index", "an encoder and a corpus -> an index to serve"),
    "serve": ("serving", "the HTTP service over an encoder and its index"),
    "bench": ("benchmarks", "the benchmarks: clue bench NAME ..."),
    "law": ("benchmarks.law", "a scaling law of your own logs, and what to train for a budget"),
}
LAUNCHED = ("pretrain", "embed")  # they share their work among processes
EXTRAS = {"index": "serve", "serve": "serve", "bench": "bench", "law": "bench"}
MAIN = '__name__ == "__main__"'


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that `argv`, or the command line, names; a wrong one exits with status 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(HELP)
        sys.stdout.writelines(f"    {name:<12}{what}\n" for name, (_, what) in COMMANDS.items())
        return
    if arguments[0] in ("-V", "--version"):
        import clue

        sys.stdout.write(f"clue {clue.__version__}\n")
        return
    command, *rest = arguments
    if command not in COMMANDS:
        _refuse(f"there is no command {command!r}", command, list(COMMANDS))
    if command == "bench":
        command, *rest = _benchmark(rest)
        _run(f"benchmarks.{command}", f"bench {command}", rest)
    elif command in LAUNCHED and rest[:1] and rest[0].startswith("--") and rest[0] != "--help":
        _launch(COMMANDS[command][0], rest)
    else:
        if command == "law":
            _benchmarks("law")
        _run(COMMANDS[command][0], command, rest)


def _run(module: str, command: str, arguments: Sequence[str]) -> None:
    """Run a module as `python -m` does; what an optional package lacks is said in one line."""
    sys.argv = [f"clue {command}", *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        extra = EXTRAS.get(command.split()[0])
        if extra is None or missing in ("clue", ""):
            raise
        _fail(
            f"clue {command} needs {missing}, which is not installed; "
            f"pip install 'clue-users[{extra}]'"
        )


def _launch(module: str, arguments: Sequence[str]) -> None:
    """Become `accelerate launch`, its options first: it starts the processes and ends them."""
    options = list(takewhile(lambda argument: argument.startswith("--"), arguments))
    rest = arguments[len(options) :]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *options, "--module", module]
    os.execv(sys.executable, [*launcher, *rest])


def _benchmark(arguments: Sequence[str]) -> Sequence[str]:
    """Return the benchmark's name and its arguments; exits where there is no such one."""
    folder = _benchmarks("bench")
    names = [path.parent.name for path in folder.glob("*/__main__.py")]
    names += [path.stem for path in folder.glob("*.py") if MAIN in path.read_text("utf-8")]
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(f"clue bench NAME ..., NAME one of {', '.join(sorted(names))}\n")
        raise SystemExit(0)
    if arguments[0] not in names:
        _refuse(f"there is no benchmark {arguments[0]!r}", arguments[0], names)
    return arguments


def _benchmarks(command: str) -> Path:
    """Return the folder of the benchmarks, on which `command` stands; exits where there is none."""
    package = find_spec("benchmarks")
    if package is None or not package.submodule_search_locations:
        _fail(
            "the benchmarks are no part of the wheel; run clue "
            f"{command} in a clone of the repository"
        )
    (folder,) = map(Path, package.submodule_search_locations)
    return folder


def _refuse(what: str, given: str, known: Sequence[str]) -> NoReturn:
    near = difflib.get_close_matches(given, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
    _fail(f"{what}; {hint}")


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(2)


if __name__ == "__main__":
    main()
