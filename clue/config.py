"""One door for configuration: YAML and `section.key=value` in, a frozen dataclass out."""

import dataclasses
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

T = TypeVar("T")


def load(cls: type[T], path: Path | None, overrides: Sequence[str] = ()) -> T:
    """Return a `cls` from a YAML file (or from its defaults) with overrides laid on top.

    `cls` is a frozen keyword-only dataclass, nested ones included. An override is `key=value` or
    `section.key=value`, its value read as YAML; `${NAME}` in any text is the environment variable.
    Raises FileNotFoundError for a missing file and ValueError for an unknown key, a wrong value, an
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
    # pydantic ignores unknown keys of plain dataclasses unless told: `dpeth: 3` would train at 4.
    adapter = TypeAdapter(_strict(cls), config=None)
    try:
        return adapter.validate_python(_expand(tree))
    except ValidationError as error:
        raise ValueError(_explain(cls, path, error)) from None


def to_yaml(config: Any) -> str:
    """Return the YAML text that `load` reads back to an equal dataclass."""
    plain = TypeAdapter(type(config)).dump_python(config, mode="json")
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def read_command_line(cls: type[T], argv: Sequence[str], *, description: str) -> T:
    """Return the config that `[CONFIG.yaml] [key=value ...]` asks for; `--help` explains and exits.

    A wrong command line ends the process with status 2 and one line that says what is wrong.
    """
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(f"{description}\n\nKeys and their defaults:\n")
        sys.stdout.writelines(f"  {line}\n" for line in _describe(cls, ""))
        raise SystemExit(0)
    path = Path(argv[0]) if argv and "=" not in argv[0] else None
    try:
        return load(cls, path, argv[1:] if path else argv)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None


def _strict(cls: type[T]) -> type[T]:
    """Forbids unknown keys in `cls` and in every dataclass that its fields name."""
    for kind in _dataclasses_in(cls):
        kind.__pydantic_config__ = ConfigDict(extra="forbid")  # pyright: ignore[reportAttributeAccessIssue]
    return cls


def _dataclasses_in(kind: Any) -> Iterator[Any]:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        yield kind
        for hint in get_type_hints(kind).values():
            yield from _dataclasses_in(hint)
    for part in get_args(kind):
        yield from _dataclasses_in(part)


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
    tree[last] = _parse(value, key)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not YAML: {' '.join(str(error).split())}") from None


def _expand(value: Any) -> Any:
    if isinstance(value, str):
        expanded = os.path.expandvars(value)
        unset = re.search(r"\$\{(\w+)\}", expanded)
        if unset:
            raise ValueError(f"{value!r} needs the environment variable {unset.group(1)}; set it")
        return expanded
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, Any]", value)
        return {key: _expand(below) for key, below in mapping.items()}
    if isinstance(value, list):
        return [_expand(below) for below in cast("list[Any]", value)]
    return value


def _explain(cls: type[Any], path: Path | None, error: ValidationError) -> str:
    known = {line.split(":")[0].split("=")[0].strip() for line in _describe(cls, "")}
    lines: list[str] = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            above = where.rpartition(".")[0]
            start = f"{above}." if above else ""
            beside = sorted({k[len(start) :].split(".")[0] for k in known if k.startswith(start)})
            lines.append(f"unknown key {where}; there are {', '.join(beside) or 'none here'}")
        elif problem["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            lines.append(f"missing key {where}; write {where}=... or put it in the file")
        else:
            lines.append(f"{where}: {problem['msg']}, got {problem['input']!r}")
    return f"{path or 'command line'}: " + "; ".join(lines)


def _describe(cls: Any, prefix: str) -> Iterator[str]:
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name, kind = prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _describe(kind, f"{name}.")
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        choices = (
            f"  ({' | '.join(map(str, get_args(kind)))})" if get_origin(kind) is Literal else ""
        )
        required = default is dataclasses.MISSING
        yield f"{name}: required{choices}" if required else f"{name}={default}{choices}"
