"""One door for configuration: YAML and `section.key=value` in, a frozen dataclass out.

`${NAME}` in a path is the environment variable NAME. Every other text is left as it is written: a
template may hold a price, a column may be called `$city`.
"""

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import yaml
from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")
R = TypeVar("R")

PathPattern = Annotated[str, "path or glob"]  # of one file or several; text, for a glob is no path
MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")


def load(cls: type[T], path: Path | None, overrides: Sequence[str] = (), *, raw: bool = False) -> T:
    """Return a `cls` from a YAML file (or from its defaults) with overrides laid on top.

    `cls` is a frozen keyword-only dataclass, nested ones included. An override is `key=value` or
    `section.key=value`, its value read as YAML. In fields of type `Path` and `PathPattern`,
    `${NAME}` is the environment variable; not so where `raw`, for a file that `to_yaml` wrote.
    Raise FileNotFoundError for a missing file and ValueError for an unknown key, a wrong value, an
    unset variable or an override without `=`; each names the dotted path.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        if not path.is_file():
            raise FileNotFoundError(f"no config file {path}; the shipped ones are under configs/")
        loaded = _parse(path.read_text(encoding="utf-8"), str(path))
        if not isinstance(loaded, dict | None):
            raise ValueError(f"{path}: expected a mapping of keys, found {type(loaded).__name__}")
        tree = cast("dict[str, Any]", loaded or {})
    for override in overrides:
        _lay(tree, override)
    # pydantic ignores unknown keys of plain dataclasses: `dpeth: 3` would train at 4.
    problems: list[str] = []
    tree = _resolve(cls, tree, "", problems, raw=raw)
    try:
        config = _adapter(cls).validate_python(tree)
    except ValidationError as error:
        problems += _explain(error)
    else:
        if not problems:
            return config
    raise ValueError(f"{path or 'command line'}: " + "; ".join(problems))


@cache
def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    """Return what reads and writes a class; making that of a pretraining config takes 50 ms."""
    return TypeAdapter(cls)


def to_yaml(config: Any) -> str:
    """Return the YAML text that `load` with `raw` reads back to an equal dataclass."""
    plain = _adapter(type(config)).dump_python(config, mode="json")
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def run_command(
    cls: type[T],
    function: Callable[[T], R],
    argv: Sequence[str] | None = None,
    *,
    description: str | None,
    also: tuple[type[Exception], ...] = (),
) -> R:
    """Return `function` of the config that the command line asks for: the `main` of a command.

    `argv` is the process's own where None; the other arguments are those of `read_command_line` and
    `user_errors`.
    """
    given = sys.argv[1:] if argv is None else argv
    config = read_command_line(cls, given, description=description or "")
    with user_errors(*also):
        return function(config)


@contextmanager
def user_errors(*also: type[Exception]) -> Generator[None]:
    """End the process with status 2 and the error's text where the block refuses its input.

    A refusal is a ValueError, an OSError (a missing file, a full disk) or one of `also`. Whatever
    else is raised is a fault of ours and keeps its traceback; Ctrl-C ends with 130, as in a shell.
    """
    try:
        yield
    except (ValueError, OSError, *also) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def read_command_line(cls: type[T], argv: Sequence[str], *, description: str) -> T:
    """Return the config that `[CONFIG.yaml] [key=value ...]` asks for; `--help` explains and exits.

    A wrong command line ends the process with status 2 and one line that says what is wrong.
    """
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(f"{description}\n\nKeys and their defaults:\n")
        sys.stdout.writelines(f"  {line}\n" for line in describe(cls))
        raise SystemExit(0)
    path = Path(argv[0]) if argv and "=" not in argv[0] else None
    with user_errors():
        return load(cls, path, argv[1:] if path else argv)


def describe(cls: Any, prefix: str = "") -> Iterator[str]:
    """Yield a line for each key of a config: its dotted name, its default, its choices.

    `key[]` stands for each entry of a list and `key.NAME` for each of a mapping.
    """
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name, kind = prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from describe(kind, f"{name}.")
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        is_choice = get_origin(kind) is Literal
        choices = f"  ({' | '.join(map(str, get_args(kind)))})" if is_choice else ""
        value = ": required" if default is dataclasses.MISSING else f"={default}"
        yield f"{name}{value}{choices}"
        for part, below in _parts(kind):
            if dataclasses.is_dataclass(below):
                yield from describe(below, f"{name}{part}.")


def _parts(kind: Any) -> list[tuple[str, Any]]:
    """Return how a value of a list, a mapping or a union is named below it, and of what type."""
    args, origin = get_args(kind), get_origin(kind)
    if origin in (list, tuple):
        return [("[]", args[0])]
    if origin is dict:
        return [(".NAME", args[1])]
    return [("", part) for part in args]


def _lay(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ValueError(f"{override!r} is not an override; write section.key=value")
    *sections, last = key.split(".")
    for section in sections:
        below = tree.setdefault(section, {})
        if not isinstance(below, dict):
            raise ValueError(f"{key}: {section} is a value, not a section")
        tree = cast("dict[str, Any]", below)
    # A format of strptime begins with %, which YAML takes for a directive.
    tree[last] = value if value.startswith("%") else _parse(value, key)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not YAML: {' '.join(str(error).split())}") from None


def _resolve(kind: Any, value: Any, where: str, problems: list[str], *, raw: bool) -> Any:
    """Return `value` with the variables of its paths put in; `problems` gets unknown keys."""
    start = f"{where}." if where else ""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if isinstance(value, str) and not raw and {Path, PathPattern} & {*options}:
        return _expand(value, where, problems)
    if isinstance(value, list):
        item = next((get_args(o)[0] for o in options if get_origin(o) in (list, tuple)), Any)
        return [
            _resolve(item, below, f"{start}{number}", problems, raw=raw)
            for number, below in enumerate(cast("list[Any]", value))
        ]
    if not isinstance(value, dict):
        return value
    mapping = cast("dict[str, Any]", value)
    cls = next((option for option in options if dataclasses.is_dataclass(option)), None)
    if cls is None:
        item = next((get_args(o)[1] for o in options if get_origin(o) is dict), Any)
        hints = dict.fromkeys(mapping, item)
    else:
        hints = get_type_hints(cls, include_extras=True)
        known = ", ".join(sorted(hints))
        unknown = [key for key in mapping if key not in hints]
        problems += [f"unknown key {start}{key}; there are {known}" for key in unknown]
    return {
        key: _resolve(hints[key], below, f"{start}{key}", problems, raw=raw)
        for key, below in mapping.items()
        if key in hints
    }


def _expand(text: str, where: str, problems: list[str]) -> str:
    names = re.findall(r"\$\{(\w+)\}", text)
    unset = [name for name in names if name not in os.environ]
    problems += [
        f"{where}: {text!r} needs the environment variable {name}; set it" for name in unset
    ]
    return text if unset else re.sub(r"\$\{(\w+)\}", lambda m: os.environ[m.group(1)], text)


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] in MISSING:
            yield f"missing key {where}; write {where}=... or put it in the file"
        else:
            yield f"{where}: {problem['msg']}, got {problem['input']!r}"
