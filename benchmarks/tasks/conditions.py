"""The answers of one model under several conditions, as the queries and measures of a task.

A measure under a condition is called "NDCG@10 [G1]". Columns of the queries have the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.protocols import Measure, Scored
from clue.evaluation.ranking import Ranks


def key(measure: str, condition: str) -> str:
    """Return the name of a measure under a condition."""
    return f"{measure} [{condition}]"


def parts(name: str) -> tuple[str, str]:
    """Return the measure and the condition of a name, "" for a measure without one."""
    measure, _, condition = name.partition(" [")
    return measure, condition.removesuffix("]")


@dataclass(frozen=True)
class Answers:
    """Columns over the same Q queries of `users` (Q,), and the measures that are made of them.

    The first measure that is added is the main one.
    """

    users: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    measures: dict[str, Measure] = field(default_factory=dict[str, Measure])

    def mean(self, measure: str, condition: str, values: np.ndarray, *, lower: bool = False) -> str:
        """Add the mean of `values` (Q,); return its name."""
        name = key(measure, condition)
        self.columns[name] = values
        self.measures[name] = Measure("mean", (name,), lower_is_better=lower)
        return name

    def subset_mean(
        self, measure: str, condition: str, values: np.ndarray, subset: np.ndarray
    ) -> None:
        """Add the mean of `values` (Q,) over the queries in `subset` (Q,) booleans."""
        name, members = key(measure, condition), f"in [{condition}]"
        self.columns[name] = np.where(subset, values, 0)
        self.columns[members] = subset.astype(np.int8)
        self.measures[name] = Measure("ratio", (name, members))

    def ratio(self, measure: str, condition: str, numerator: str, denominator: str) -> None:
        """Add the sum of one column over that of another."""
        self.measures[key(measure, condition)] = Measure("ratio", (numerator, denominator))

    def coverage(self, condition: str, lists: np.ndarray, items: int) -> None:
        """Add the share of `items` that is in some of the lists (Q, k)."""
        name = key(f"coverage@{lists.shape[1]}", condition)
        self.columns[name] = lists.astype(np.int32)
        self.columns["items"] = np.full(len(lists), items, np.int32)
        self.measures[name] = Measure("coverage", (name, "items"))

    def top_10(self, condition: str, ranks: Ranks) -> str:
        """Add NDCG@10 and HR@10 of ranks; return the name of the first."""
        name = self.mean("NDCG@10", condition, ranks.ndcg(10))
        self.mean("HR@10", condition, ranks.hit(10))
        return name

    def main_first(self, name: str) -> "Answers":
        """Return the same with another main measure."""
        return Answers(self.users, self.columns, {name: self.measures[name]} | dict(self.measures))

    def scored(self, user_ids: pa.Array, chosen: Mapping[str, Any]) -> Scored:
        """Return the queries, a line for each; `user_ids` are those of the corpus."""
        table: dict[str, pa.Array] = {"user_id": user_ids.take(pa.array(self.users))}
        for name, values in self.columns.items():
            flat = pa.array(np.ascontiguousarray(values).ravel())
            table[name] = (
                flat
                if values.ndim == 1
                else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
            )
        return Scored(pa.table(table), self.measures, chosen)
