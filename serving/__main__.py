"""Command: the HTTP service of one process.

    clue serve checkpoint=runs/demo index=indexes/demo port=8000

Limits come from CLUE_* variables (serving/settings.py), and so do checkpoint and index where they
are not given. For more processes, and with OMP_NUM_THREADS=1 set before Python starts:

    uvicorn --factory serving.app:create_app --workers 4
"""

from dataclasses import dataclass
from pathlib import Path

import uvicorn
from pydantic import ValidationError

from clue.config import run_command
from serving.app import create_app
from serving.settings import Settings


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What to serve and where."""

    checkpoint: Path | None = None
    index: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000


def settings_of(config: ServeConfig) -> Settings:
    """Return the service's settings; raises ValueError naming what is missing or wrong."""
    given = {"checkpoint": config.checkpoint, "index": config.index}
    try:
        return Settings(**{name: path for name, path in given.items() if path is not None})  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        wrong = [(str(each["loc"][0]), each["msg"]) for each in error.errors()]
        raise ValueError(
            "; ".join(
                f"{name}: {said}, give {name}= or CLUE_{name.upper()}" for name, said in wrong
            )
        ) from None


def serve(config: ServeConfig) -> None:
    """Answer requests until the process is told to end."""
    uvicorn.run(create_app(settings_of(config)), host=config.host, port=config.port)


def main() -> None:
    """Run the command line."""
    run_command(ServeConfig, serve, description=__doc__)


if __name__ == "__main__":
    main()
