"""The keys of each command as Markdown tables, from the dataclasses that read them."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic_core import PydanticUndefined

from benchmarks.law.law_config import LawConfig
from benchmarks.scaling.sweep.sweep_config import SweepConfig
from benchmarks.suite.runner import SuiteConfig
from clue.data.ingest.prepare_config import PrepareConfig
from clue.embed import EmbedConfig
from clue.run.pretrain_config import PretrainConfig
from clue.synthetic.world import SyntheticConfig

CONFIGS: dict[str, type[Any]] = {
    "prepare": PrepareConfig,
    "pretrain": PretrainConfig,
    "embed": EmbedConfig,
    "synthetic": SyntheticConfig,
    "suite": SuiteConfig,
    "sweep": SweepConfig,
    "law": LawConfig,
}
SENTENCE = re.compile(r"(?<=[.;]) +(?=[A-Z`])")
# What neither the docstring nor a comment behind the field has room for.
PLAIN: dict[str, str] = {
    "task": "Which task of the world.",
    "label": "Which label.",
    "name": "A plain name, of which files and folders are called.",
    "out": "Where what is made is written.",
    "seed": "Of all that is drawn.",
    "DecoderConfig.positions": "A learned vector for each position, or rotary embeddings.",
    "Grid.role": "`fit`, `held_out` (never fitted: what a law must predict) or `check` (neither).",
    "LossConfig.kind": "Symmetric InfoNCE, or SigLIP's sigmoid loss, which needs a bias.",
    "PrepareConfig.on_bad_row": "Stop at a row that cannot be read, or leave it out and count it.",
    "PretrainConfig.trackers": "Where figures go beside `log.jsonl`.",
    "SequencesConfig.split": "Held out are each user's last events, or all from a moment on.",
    "SyntheticConfig.services": "Names of the services.",
}


def markdown(name: str) -> str:
    """Return the keys of a command: for each dataclass its docstring and a table.

    Raises ValueError for a command without a config.
    """
    if name not in CONFIGS:
        raise ValueError(f"no config {name!r}; there are {', '.join(CONFIGS)}")
    return "\n\n".join(_section(prefix, cls) for prefix, cls in sections(CONFIGS[name]))


def settings(root: Path) -> str:
    """Return the service's variables as a table, from the text of serving/settings.py.

    It is read and not imported: benchmarks and the service know nothing of each other.
    """
    tree = ast.parse((root / "serving" / "settings.py").read_text(encoding="utf-8"))
    lines = ["| variable | default | meaning |", "|" + " --- |" * 3]
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
            given = {word.arg: ast.literal_eval(word.value) for word in node.value.keywords}
            default = f"`{given['default']}`" if "default" in given else "required"
            name = f"CLUE_{ast.unparse(node.target).upper()}"
            lines.append(f"| `{name}` | {default} | {given['description']} |")
    return "\n".join(lines)


def sections(cls: type[Any], prefix: str = "") -> Iterator[tuple[str, type[Any]]]:
    """Return a config and, depth first, those below it, each with its dotted path."""
    yield prefix, cls
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        for below in _dataclasses_of(hints[field.name]):
            mark = "[]" if get_origin(hints[field.name]) is list else ""
            mark = ".NAME" if get_origin(hints[field.name]) is dict else mark
            yield from sections(below, f"{prefix}{'.' if prefix else ''}{field.name}{mark}")


def meanings(cls: type[Any]) -> dict[str, str]:
    """Return what a config's docstring says of each of its keys that it names.

    A sentence belongs to the first keys that it names, and the sentences after it, up to the next
    that names one, go on about them.
    """
    names = {field.name for field in dataclasses.fields(cls)}
    texts: dict[str, str] = {}
    for paragraph in inspect.cleandoc(cls.__doc__ or "").split("\n\n"):
        about: list[str] = []
        for sentence in SENTENCE.split(" ".join(paragraph.split())):
            named = [name for name in re.findall(r"`([a-z_]+)", sentence) if name in names]
            fresh = [name for name in dict.fromkeys(named) if name not in texts]
            about = fresh or ([] if named else about)
            for name in about:
                texts[name] = f"{texts.get(name, '')} {sentence}".strip()
    return texts


def comments(cls: type[Any]) -> dict[str, str]:
    """Return the comment behind each field of a config that has one, on its line."""
    lines = re.findall(r"^    (\w+): .*?  # (.+)$", inspect.getsource(cls), re.MULTILINE)
    return dict(lines)


def _section(prefix: str, cls: type[Any]) -> str:
    hints, said = get_type_hints(cls), meanings(cls) | comments(cls)
    summary = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    lines = [f"### `{prefix}`\n"] if prefix else []
    lines += [re.split(r"(?<=\.) ", summary)[0], "", "| key | type | default | meaning |"]
    lines.append("|" + " --- |" * 4)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            continue
        key = f"{prefix}.{field.name}" if prefix else field.name
        meaning = PLAIN.get(f"{cls.__name__}.{field.name}") or said.get(field.name, "")
        meaning = meaning or PLAIN.get(field.name, "")
        if not meaning and any(_dataclasses_of(hints[field.name])):
            meaning = "The section below."
        cells = (f"`{key}`", _kind(hints[field.name]), _default(field), meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _dataclasses_of(hint: Any) -> Iterator[type[Any]]:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for part in get_args(hint):
        yield from _dataclasses_of(part)


def _kind(hint: Any) -> str:
    """Return a type in words that a YAML's author knows."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join("none" if part is NoneType else _kind(part) for part in arguments)
    if origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is tuple:
        return ", ".join(_kind(part) for part in arguments if part is not Ellipsis)
    if origin is dict:
        return f"mapping of {_kind(arguments[0])} to {_kind(arguments[1])}"
    plain = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path"}
    return plain.get(hint, "section" if dataclasses.is_dataclass(hint) else "value")


def _default(field: "dataclasses.Field[Any]") -> str:
    value: Any = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING or value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    text = re.sub(r"Path\('([^']*)'\)|PosixPath\('([^']*)'\)", r"\1\2", str(value))
    return f"`{text}`" if text else "empty"
