"""What a preparation shows while it runs."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from tqdm import tqdm


class Progress:
    """One line per stage with its seconds; at a terminal a moving count while it runs."""

    def __init__(self, on: bool) -> None:
        """Show nothing unless `on`."""
        self.on = on

    def line(self, text: str) -> None:
        """Show a line."""
        if self.on:
            tqdm.write(text, file=sys.stderr)

    @contextmanager
    def stage(self, name: str) -> Generator[Callable[[int], object]]:
        """Show `name` while the block runs; yield a function to call with the rows just done."""
        start = time.perf_counter()
        quiet = not (self.on and sys.stderr.isatty())
        with tqdm(desc=name, unit=" rows", disable=quiet, leave=False) as bar:
            yield bar.update
        self.line(f"{name}: {time.perf_counter() - start:.1f} s")
