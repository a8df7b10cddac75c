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
}
SENTENCE = re.compile(r"(?<=[.;]) +(?=[A-Z`])")
# Keys whose names say nearly all: what their dataclasses leave unsaid.
PLAIN: dict[str, str] = {
    "task": "Which task of the world.",
    "label": "Which label.",
    "name": "A plain name, of which files and folders are called.",
    "out": "Where what is made is written.",
    "seed": "Of all that is drawn.",
    "ClicksConfig.impressions": "The Parquet table.",
    "ColesConfig.item_width": "Width of an item's vector.",
    "ColesConfig.rate": "Adam's learning rate.",
    "ColesConfig.service_width": "Width of a service's vector.",
    "ColesConfig.width": "Width of the recurrent state, which is the user's vector.",
    "ColesConfig.work": "Where its data and vectors are kept.",
    "Columns.item_id": "The column of the item's id.",
    "Columns.service": "The column of the service.",
    "Columns.text": "The column of the event's or the item's text.",
    "Columns.timestamp": "The column of the time.",
    "Columns.user_id": "The column of the user's id.",
    "DecoderConfig.heads": "Heads of attention in a layer; they divide the width.",
    "DecoderConfig.layers": "How many blocks.",
    "DecoderConfig.positions": "A learned vector for each position, or rotary embeddings.",
    "DecoderConfig.width": "Width D of the model and of the user's vector.",
    "DualEncoderConfig.initial_scale": "What cosines are multiplied by at the first step; learned.",
    "EmbedConfig.before": "Only events before this time are read (epoch seconds).",
    "EmbedConfig.checkpoint": "A run directory (its best checkpoint), or a checkpoint.",
    "EmbedConfig.out": "The Parquet file to write.",
    "Grid.batches": "Batches to try.",
    "Grid.role": "`fit`, `held_out` (never fitted: what a law must predict) or `check` (neither).",
    "Grid.seeds": "Seeds to try.",
    "FieldConfig.kind": "A number, one of a set of texts, or true or false.",
    "GroupConfig.services": "The services of the group.",
    "ItemEncoderConfig.dropout": "Share of activations dropped in training.",
    "ItemEncoderConfig.heads": "Heads of attention in a layer; they divide the width.",
    "ItemEncoderConfig.layers": "Blocks over an item's tokens.",
    "ItemEncoderConfig.width": "Width of an item's vector.",
    "LossConfig.kind": "Symmetric InfoNCE, or SigLIP's sigmoid loss, which needs a bias.",
    "OptimizerConfig.betas": "AdamW's decay rates of the two moments.",
    "OptimizerConfig.clip": "The greatest norm of the gradient; a longer one is shortened to it.",
    "OptimizerConfig.eps": "AdamW's addend to the denominator.",
    "OptimizerConfig.warmup_steps": "Steps in which the rate rises to its peak in a line.",
    "PrepareConfig.ignore_services": "Services whose events are passed over.",
    "PrepareConfig.max_item_tokens": "Tokens kept of an item's text, the first ones.",
    "PrepareConfig.name": "Of the corpus, corpora/NAME.",
    "PrepareConfig.on_bad_row": "Stop at a row that cannot be read, or leave it out and count it.",
    "PrepareConfig.overwrite": "Whether a corpus that is there already is replaced.",
    "PretrainConfig.corpus": "The directory that `clue/prepare.py` wrote.",
    "PretrainConfig.name": "Of the run, runs/NAME.",
    "PretrainConfig.runs": "The directory of all runs.",
    "PretrainConfig.steps": "Optimiser steps of the run.",
    "PretrainConfig.trackers": "Where figures go beside `log.jsonl`.",
    "SequencesConfig.split": "Held out are each user's last events, or all from a moment on.",
    "Shares.test": "Share of users held out for test.",
    "Shares.valid": "Share of users held out for validation.",
    "ServiceConfig.template": "Text of an item with its columns in braces, `{title} by {author}`.",
    "SplitConfig.column": "The column whose value says a user's part.",
    "SplitConfig.test": "Values of the column that mean test.",
    "SplitConfig.train": "Values of the column that mean training.",
    "SplitConfig.valid": "Values of the column that mean validation.",
    "SuiteConfig.half_life": "Events after which a baseline's weight of an old one is halved.",
    "SuiteConfig.resamples": "Bootstrap resamples of an interval.",
    "SuiteConfig.text_dims": "Width of the TF-IDF + SVD baseline.",
    "SweepConfig.out": "Where tables are written, OUT/NAME.",
    "SweepConfig.overrides": "Keys of the pretraining config, for all points.",
    "SweepConfig.runs": "Where the runs are written.",
    "SyntheticConfig.days": "Days that the logs span.",
    "SyntheticConfig.interests": "Interests Q of the world; a user has shares of them.",
    "SyntheticConfig.items_per_service": "Items of each service.",
    "SyntheticConfig.out": "The directory of the logs.",
    "SyntheticConfig.seed": "Of the world and its users.",
    "SyntheticConfig.services": "Names of the services.",
    "SyntheticConfig.users": "How many users.",
    "TokenizerConfig.path": "A `tokenizer.json`; none: one is learned from the items' texts.",
    "TokenizerConfig.vocab_size": "Tokens V of the tokenizer that is learned.",
    "UserEncoderConfig.dropout": "Share of activations dropped in training.",
    "UserEncoderConfig.heads": "Heads of attention in a layer; they divide the width.",
    "UserEncoderConfig.layers": "Blocks over a history's events.",
    "UserEncoderConfig.width": "Width D of the blocks.",
    "ViewsConfig.max_events": "Events of a view, a window of the history.",
    "WindowsConfig.active_days": "Asked of users who bought in so many days before the window.",
    "WindowsConfig.service": "The service of the sales.",
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


def _section(prefix: str, cls: type[Any]) -> str:
    hints, said = get_type_hints(cls), meanings(cls)
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
