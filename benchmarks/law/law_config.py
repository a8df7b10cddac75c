"""What `clue law` is asked for: its own keys and those of preparation on one command line."""

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from clue.config import load, read_command_line
from clue.data.cache import MANIFEST
from clue.data.ingest.prepare_config import PrepareConfig
from clue.prepare import with_logs_as_keys

HEAD = 8  # width of a head at every size: the rule for the rate wants one (clue/train/transfer.py)
FEWEST_WIDTHS = 5  # three are fitted, one is held out, one lies between


@dataclass(frozen=True, kw_only=True)
class LawConfig:
    """A law in `minutes` of wall time; what the log is, the keys of `clue prepare` say.

    `name` is that of the folder laws/NAME, the log's or the corpus's unless set. `corpus` is a
    prepared one; without it the log is prepared first. `objective`: the `contrastive` encoder where
    the log has the users for it, else the `next_item` model; or the one that is named. `widths` are
    those that may be trained, ascending, all of `layers` layers: the time decides how many.

    `jobs` runs are trained at once, 0 for one on each GPU or each core, each with `threads`
    threads. The folders `laws` and `runs` hold all laws and their runs.
    """

    name: str | None = None
    corpus: Path | None = None
    minutes: float = 45.0
    objective: Literal["auto", "contrastive", "next_item"] = "auto"
    widths: list[int] = field(default_factory=lambda: [16, 24, 32, 48, 64, 96, 128])
    layers: int = 2  # Layers of all sizes.
    jobs: int = 0
    threads: int = 1
    laws: Path = Path("laws")
    runs: Path = Path("runs/law")

    def __post_init__(self) -> None:
        """Refuse names that are no folder's, and widths of which no ladder is made."""
        if self.name is not None and not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"name={self.name!r} must be letters, digits, dots and dashes")
        odd = [width for width in self.widths if width < 1 or width % HEAD]
        if odd or sorted(set(self.widths)) != self.widths or len(self.widths) < FEWEST_WIDTHS:
            raise ValueError(
                f"widths are {self.widths}; give {FEWEST_WIDTHS} or more, ascending, each a "
                f"multiple of {HEAD}"
            )
        if self.minutes <= 0 or self.layers < 1 or self.jobs < 0 or self.threads < 1:
            raise ValueError(
                f"minutes {self.minutes:g}, layers {self.layers}, jobs {self.jobs}, threads "
                f"{self.threads}: give positive numbers, and 0 jobs or more"
            )

    @property
    def folder(self) -> Path:
        """The folder of this law."""
        return self.laws / str(self.name)

    @property
    def slots(self) -> int:
        """How many runs are trained at once."""
        return self.jobs or torch.cuda.device_count() or len(os.sched_getaffinity(0))


OWN = {field.name for field in dataclasses.fields(LawConfig)}


def read_arguments(argv: Sequence[str]) -> tuple[LawConfig, PrepareConfig | None]:
    """Return the law that `EVENTS [key=value ...]` asks for, and how its log is prepared.

    EVENTS are log files, a YAML of `clue prepare`, or a folder that it made. ValueError without
    any, for a key of neither command, and for one of preparation beside a prepared corpus.
    """
    words, yaml = list(argv), None
    if words and (Path(words[0]) / MANIFEST).is_file():
        words[:1] = [f"name={Path(words[0]).name}", f"corpus={words[0]}"]
    elif words and words[0].endswith((".yaml", ".yml")):
        yaml, words = Path(words[0]), words[1:]
    else:
        words = with_logs_as_keys(words)
    keys = [re.split(r"[.=]", word, maxsplit=1)[0] for word in words]
    own = [word for word, key in zip(words, keys, strict=True) if key in OWN]
    other = [word for word, key in zip(words, keys, strict=True) if key not in OWN]
    law = read_command_line(LawConfig, own, description="")
    if law.corpus is not None:
        if other or yaml:
            raise ValueError(
                f"{law.corpus} is prepared, and {(other or [yaml])[0]} is a key of preparation; "
                f"leave it out, or give the log. Keys of clue law are {', '.join(sorted(OWN))}"
            )
        return replace(law, name=law.name or law.corpus.name), None
    if yaml is None and not any(word.startswith("events=") for word in words):
        raise ValueError(
            "no log; give one: clue law EVENTS, a file or folder as clue prepare takes it, a YAML "
            "of clue prepare, or a folder that it made"
        )
    names = [word for word in own if word.startswith("name=")]
    prepare = load(PrepareConfig, yaml, [*names, *other])
    return replace(law, name=law.name or prepare.name), prepare
