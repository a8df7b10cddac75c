"""Command: the HTTP service.

    clue serve checkpoint=runs/demo index=indexes/demo port=8000 workers=2

Limits, keys and rates come from CLUE_* variables (serving/settings.py), and so do checkpoint and
index where they are not given. Set OMP_NUM_THREADS=1 before Python starts.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from clue.config import run_command
from serving import server
from serving.settings import Settings


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What to serve and where."""

    checkpoint: Path | None = None
    index: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1


def settings_of(config: ServeConfig) -> Settings:
    """Return the service's settings; raises ValueError naming what is missing or wrong."""
    given = {"checkpoint": config.checkpoint, "index": config.index}
    try:
        return Settings(**{name: path for name, path in given.items() if path is not None})  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        wrong = [(str((each["loc"] or ("keys",))[0]), each["msg"]) for each in error.errors()]
        raise ValueError(
            "; ".join(
                f"{name}: {said}, give {name}= or CLUE_{name.upper()}" for name, said in wrong
            )
        ) from None


def serve(config: ServeConfig) -> None:
    """Answer requests until the process is told to end."""
    if config.workers < 1:
        raise ValueError(f"workers={config.workers}; give at least 1")
    settings = settings_of(config)
    server.serve(settings, host=config.host, port=config.port, workers=config.workers)


def main() -> None:
    """Run the command line."""
    run_command(ServeConfig, serve, description=__doc__)


if __name__ == "__main__":
    main()
