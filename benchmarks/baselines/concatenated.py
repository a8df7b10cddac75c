"""Representations made of others: several side by side, and one without one of its blocks."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.baselines.representations import EncoderModel
from benchmarks.protocols import Model, has_items, items_of
from benchmarks.snapshot import Snapshot


class Concatenated:
    """Several representations side by side, such as an embedding and hand-made features.

    For probes that standardise: the parts keep their own scales, so that a user's vector does not
    depend on whom it is asked with.
    """

    def __init__(self, name: str, parts: Sequence[Model]) -> None:
        """Take the seed of the first."""
        self.name, self.parts, self.seed = name, parts, parts[0].seed
        self.fingerprint = "+".join(part.fingerprint for part in parts)

    @property
    def blocks(self) -> Mapping[str, slice]:
        """One a part by its name, or all of a part that has several, "part: block"."""
        made: dict[str, slice] = {}
        start = 0
        for part in self.parts:
            for name, columns in part.blocks.items():
                whole = part.name if len(part.blocks) == 1 else f"{part.name}: {name}"
                made[whole] = slice(start + columns.start, start + columns.stop)
            start += _width(part)
        return made

    @property
    def similarity(self) -> slice:
        """All columns."""
        return slice(None)

    def users(self, past: Snapshot) -> np.ndarray:
        """Return the parts' vectors (n, sum of widths)."""
        return np.concatenate([part.users(past) for part in self.parts], axis=1)

    def items(self) -> np.ndarray:
        """Return the parts' vectors of items, zeros (num_items, width) of a part without any.

        Raises ValueError where no part has them.
        """
        return self._filled([part.items() if has_items(part) else None for part in self.parts])

    def whole_items(self) -> np.ndarray:
        """Return the same of the parts' `whole_items`."""
        return self._filled([whole_items(part) if has_items(part) else None for part in self.parts])

    def _filled(self, each: Sequence[np.ndarray | None]) -> np.ndarray:
        rows = next((len(items) for items in each if items is not None), None)
        if rows is None:
            raise ValueError(f"{self.name}: none of its parts has vectors of items")
        filled = [
            np.zeros((rows, _width(part)), np.float32) if items is None else items
            for part, items in zip(self.parts, each, strict=True)
        ]
        return np.concatenate(filled, axis=1)


class WithoutBlock:
    """A trained encoder without one block of its vector, whose other blocks stay what they are."""

    def __init__(self, whole: EncoderModel, block: str) -> None:
        """Raise ValueError for a block that it lacks, or for its only one."""
        if block not in whole.blocks or len(whole.blocks) < 2:
            raise ValueError(f"{whole.name} has blocks {list(whole.blocks)}; {block} cannot go")
        self.name, self.seed, self.whole, self.block = f"without {block}", whole.seed, whole, block
        self.fingerprint = f"{whole.fingerprint}-without-{block}"
        self._kept = np.ones(whole.width, bool)
        self._kept[whole.blocks[block]] = False

    @property
    def blocks(self) -> Mapping[str, slice]:
        """The columns that each other block has now."""
        made: dict[str, slice] = {}
        start = 0
        for name, columns in self.whole.blocks.items():
            if name != self.block:
                made[name] = slice(start, start + columns.stop - columns.start)
                start = made[name].stop
        return made

    @property
    def similarity(self) -> slice:
        """What is left of the columns by which users are compared; all, where nothing is."""
        inside = np.zeros(len(self._kept), bool)
        inside[self.whole.similarity] = True
        columns = np.flatnonzero(inside[self._kept])
        return slice(int(columns[0]), int(columns[-1]) + 1) if len(columns) else slice(None)

    def users(self, past: Snapshot) -> np.ndarray:
        """Return the vectors (n, E - width of the block)."""
        return self.whole.users(past)[:, self._kept]

    def items(self) -> np.ndarray:
        """Return the items' vectors, in all blocks where the one went that they rank by."""
        items = self.whole.items()[:, self._kept]
        return items if items.any() else self.whole_items()

    def whole_items(self) -> np.ndarray:
        """Return the items' vectors in all blocks that are left."""
        return self.whole.whole_items[:, self._kept]


def whole_items(model: Model) -> np.ndarray:
    """Return a model's items (num_items, E) in all columns that it has of them.

    `items` has those alone that rank by an inner product. ValueError for a model without.
    """
    if isinstance(model, EncoderModel):
        return model.whole_items
    if isinstance(model, Concatenated | WithoutBlock):
        return model.whole_items()
    return items_of(model)


def beside(models: Sequence[Model], counts: Model) -> list[Concatenated]:
    """Return every trained encoder with `counts` beside its vector, "CLUE + item counts"."""
    trained = [one for one in models if isinstance(one, EncoderModel) and not one.untrained]
    return [Concatenated(f"{one.name} + {counts.name}", [one, counts]) for one in trained]


def _width(model: Model) -> int:
    return max(columns.stop for columns in model.blocks.values())
