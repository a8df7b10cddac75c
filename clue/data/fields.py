"""Fields of events (amounts, channels, flags) as small whole numbers: buckets and categories.

A corpus stores a numeric field as it is, NaN where it is missing, and a categorical or boolean one
as codes into its `values`. A model reads codes of all three: 0 is missing, 1 is zero (numeric) or
"other" (categorical, boolean), 2 and above are the buckets or the values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

FieldKind = Literal["numeric", "categorical", "boolean"]
MISSING = 0
ZERO = OTHER = 1
FIRST = 2  # the code of the first bucket or value
MOST_BUCKETS = 64
MOST_VALUES = 65_534  # what uint16 leaves above FIRST


@dataclass(frozen=True)
class Field:
    """A field of a service's events, as its training users have it.

    `edges` (numeric) ascend and part the numbers into len(edges) + 1 buckets; a number equal to an
    edge lies above it. `values` (categorical, boolean) are the texts that the codes from 2 on stand
    for, the most frequent first.
    """

    name: str
    kind: FieldKind
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()

    @classmethod
    def read(cls, each: Mapping[str, Any]) -> "Field":
        """Return the field that a manifest's JSON holds."""
        return cls(each["name"], each["kind"], tuple(each["edges"]), tuple(each["values"]))

    @property
    def num_codes(self) -> int:
        """The number of codes: those of `codes` lie in 0 .. num_codes - 1."""
        return FIRST + (len(self.edges) + 1 if self.kind == "numeric" else len(self.values))

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Return the codes, uint16 (n,), of `values` (n,) as this field's corpus stores them.

        Those of a numeric field are float32 (NaN: missing); those of the others are codes already,
        and ValueError is raised for one beyond `num_codes`. What another corpus stores is first
        brought here by `translate`.
        """
        if self.kind != "numeric":
            if values.size and values.max() >= self.num_codes:
                raise ValueError(
                    f"field {self.name!r}: code {values.max()}, and it has {self.num_codes}; "
                    "translate the codes of another corpus first"
                )
            return values.astype(np.uint16)
        values = values.astype(np.float32)
        buckets = np.searchsorted(np.array(self.edges, np.float32), values, side="right")
        codes = (FIRST + buckets).astype(np.uint16)
        codes[values == 0] = ZERO
        codes[np.isnan(values)] = MISSING
        return codes

    def translate(self, other: "Field") -> np.ndarray:
        """Return this field's code for each code of `other`, uint16 (other.num_codes,).

        `field.translate(other)[codes]` reads the codes of another corpus; values that this field
        does not know become "other". Raises ValueError unless both are categorical or both
        boolean: numbers are stored as they are, and `codes` reads those of any corpus.
        """
        if self.kind != other.kind or self.kind == "numeric":
            raise ValueError(
                f"field {self.name!r} is {self.kind} here and {other.kind} there; only the codes "
                "of two categorical or two boolean fields are translated"
            )
        known = {value: FIRST + number for number, value in enumerate(self.values)}
        codes = [MISSING, OTHER, *(known.get(value, OTHER) for value in other.values)]
        return np.array(codes, np.uint16)


def learn_edges(values: np.ndarray) -> tuple[float, ...]:
    """Return the edges, float32 as Python floats, between at most 64 buckets of equal counts.

    `values` are float32 (n,); missing ones (NaN) and zeros, which have codes of their own, do not
    count. An edge is a value that occurs, and no bucket is empty of these values.
    """
    counted = values[np.isfinite(values) & (values != 0)].astype(np.float32)
    if not counted.size:
        return ()
    shares = np.arange(1, MOST_BUCKETS) / MOST_BUCKETS
    edges = np.unique(np.quantile(counted, shares, method="inverted_cdf"))
    return tuple(edges[edges > counted.min()].tolist())
