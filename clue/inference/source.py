"""Where a model comes from: a run, one of its checkpoints, an exported folder, the Hub."""

from pathlib import Path

from clue.inference.hub import NAME, ModelSource, download, read_folder
from clue.run import checkpoint


def find_source(path: Path | str) -> ModelSource:
    """Return the model at `path`.

    A text "org/name" names a repository of the Hub where neither it nor the folder "org" is a path
    here; a Path is always one. Raises FileNotFoundError where there is no model and ValueError
    where it is damaged.
    """
    local = Path(path)
    if (local / "config.json").is_file():
        return read_folder(local)
    # a mistyped runs/demo should end here at once and not ask a server for it
    if isinstance(path, str) and NAME.fullmatch(path) and not local.parent.exists():
        return read_folder(download(path))
    return checkpoint.find(local)
