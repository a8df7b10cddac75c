"""Command: a public data set, downloaded and made into a log that `clue/prepare.py` reads.

    python -m benchmarks.datasets movielens-1m
    python -m benchmarks.datasets amazon-2023 categories='[Video_Games, Software]' out=data/amazon

The sets are movielens-1m, movielens-20m, movielens-32m, amazon-2023, mind-small and recsys-2025.
A run that was stopped goes on where it was when given again. Where there is no network the command
says which files to put where by hand, and then goes on from those.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.datasets import amazon, mind, movielens, synerise
from benchmarks.datasets.download import Publisher, check_space, fetch
from benchmarks.datasets.log_tables import Recipe, summary, write_config, write_tables
from clue.atomic import write_text
from clue.config import run_command, user_errors

Name = Literal[
    "movielens-1m", "movielens-20m", "movielens-32m", "amazon-2023", "mind-small", "recsys-2025"
]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which set, and where to; `out` is data/NAME unless set.

    `categories` are those of amazon-2023, `services` the kinds of events of recsys-2025; empty
    means the default ones. `mirror` is an address that holds the same files by name, in place of
    the publisher's. `token` is for mind-small, whose publisher asks for an account.
    """

    name: Name
    out: Path | None = None
    categories: list[str] = field(default_factory=list[str])
    services: list[str] = field(default_factory=list[str])
    mirror: str | None = None
    token: str | None = None
    memory_limit: str = "2GB"

    def __post_init__(self) -> None:
        """Refuse a key that the set does not have, and a mirror that is no address."""
        owners = {"categories": "amazon-2023", "services": "recsys-2025", "token": "mind-small"}
        for key, owner in owners.items():
            if getattr(self, key) and self.name != owner:
                raise ValueError(f"{key} is a key of {owner}; leave it out for {self.name}")
        if self.mirror is not None and not self.mirror.startswith(("http://", "https://")):
            raise ValueError(f"mirror={self.mirror!r} must start with http:// or https://")


def recipe_of(config: DataConfig, out: Path) -> Recipe:
    """Return how the set is made."""
    match config.name:
        case "movielens-1m":
            return movielens.recipe_1m(out)
        case "movielens-20m":
            return movielens.recipe_csv(out, "ml-20m")
        case "movielens-32m":
            return movielens.recipe_csv(out, "ml-32m")
        case "amazon-2023":
            return amazon.recipe(out, config.categories or amazon.DEFAULT)
        case "mind-small":
            return mind.recipe(out)
        case "recsys-2025":
            return synerise.recipe(out, config.services or synerise.DEFAULT)


def run(config: DataConfig, *, pause: float = 2.0) -> Path:
    """Return the data YAML of the set, made. See `fetch` and `write_tables` for what they raise."""
    out = config.out or Path("data") / config.name
    recipe = recipe_of(config, out)
    publisher = Publisher(
        sources=recipe.sources,
        raw=out / "raw",
        page=recipe.page,
        hint=recipe.hint,
        mirror=config.mirror,
        token=config.token,
    )
    publisher.raw.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"{config.name}, for its terms see {recipe.page}\n")
    sys.stderr.write(f"{check_space(publisher, recipe.growth)}\n")
    lock = publisher.raw / "lock.json"
    recorded = json.loads(lock.read_text(encoding="utf-8")) if lock.is_file() else {}
    known = fetch(publisher, recorded, pause=pause)
    rows = write_tables(recipe, out, config.memory_limit)
    # Only now: a file that makes no set, say half of one put there by hand, must not be the first.
    write_text(lock, json.dumps(recorded | known, indent=2) + "\n")
    file = write_config(recipe, out, config.name.replace("-", "_"))
    sys.stdout.write(summary(out, rows, file))
    return file


def arguments(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the name of the set, the first word, as `name=`."""
    words = list(argv)
    return [f"name={words[0]}", *words[1:]] if words and "=" not in words[0] else words


def main() -> None:
    """Run the command line."""
    argv = sys.argv[1:]
    if not {"--help", "-h"} & set(argv):
        with user_errors():
            argv = arguments(argv)
    run_command(DataConfig, run, argv, description=__doc__)


if __name__ == "__main__":
    main()
