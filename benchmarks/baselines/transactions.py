"""Sales of a shop with times and prices, and what an analyst counts of them: the aggregates."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.datasets.label_tables import read_table, rows_of
from benchmarks.protocols import one_block
from benchmarks.snapshot import Snapshot
from clue.atomic import sha256
from clue.data.corpus import Corpus
from clue.data.ingest.table import ColumnKind
from clue.data.ragged import Ragged

DAY = 86_400.0  # seconds
COUNTED = 16  # columns beside the counts of single items
WINDOWS = (7.0, 28.0, 90.0, np.inf)  # days before the moment
COLUMNS: Mapping[str, ColumnKind] = {
    "user_id": "id",
    "item_id": "id",
    "timestamp": "time",
    "invoice": "id",
    "quantity": "number",
    "price": "number",
}


@dataclass(frozen=True)
class Sales:
    """The lines of all sales, by user and time; columns (n,) each, rows of one user in `offsets`.

    `item` and `invoice` are numbers of their ids, `time` is epoch seconds, `money` is quantity
    times price. `offsets` (users + 1,) has an entry for each user of the corpus.
    """

    item: np.ndarray
    time: np.ndarray
    invoice: np.ndarray
    money: np.ndarray
    offsets: np.ndarray
    items: pa.Array
    source: str

    def between(self, users: np.ndarray, start: np.ndarray | float, end: np.ndarray) -> Ragged:
        """Return the lines of `users` (n,) in start <= time < end, a row of indices for each."""
        rows = Ragged(np.arange(len(self.time)), self.offsets).take(users)
        time = self.time[rows.values]
        low, high = (
            np.repeat(np.broadcast_to(edge, (len(users),)), rows.lengths) for edge in (start, end)
        )
        return rows.mask((time >= low) & (time < high))


def read_sales(corpus: Corpus, file: Path) -> Sales:
    """Return the sales in a table of COLUMNS to users of the corpus.

    FileNotFoundError without the file; ValueError for a missing column, an empty cell, a refund, or
    a table without a user of the corpus.
    """
    table = read_table(file, COLUMNS)
    refuse_refunds(table, file)
    user = rows_of(table["user_id"], corpus.user_ids.to_pylist(), f"{file}: user_id", corpus)
    order = np.lexsort((table["timestamp"].to_numpy(), user))
    order = order[user[order] >= 0]
    if not len(order):
        raise ValueError(f"{file}: none of its users is in {corpus.path}; are the ids the same?")
    table = table.take(pa.array(order))
    number = {
        name: table[name].combine_chunks().dictionary_encode() for name in ("item_id", "invoice")
    }
    column = {name: table[name].to_numpy() for name in ("timestamp", "quantity", "price")}
    counts = np.bincount(user[order], minlength=corpus.num_users)
    return Sales(
        item=number["item_id"].indices.to_numpy(),
        time=column["timestamp"],
        invoice=number["invoice"].indices.to_numpy(),
        money=column["quantity"] * column["price"],
        offsets=np.r_[0, np.cumsum(counts)],
        items=number["item_id"].dictionary,
        source=sha256(file),
    )


def refuse_refunds(table: pa.Table, file: Path) -> None:
    """Raise ValueError for a line of negative money: the logarithm of what was spent needs none."""
    money = table["quantity"].to_numpy() * table["price"].to_numpy()
    refunds = np.flatnonzero(money < 0)
    if len(refunds):
        raise ValueError(
            f"{file}: row {refunds[0] + 1} has money {money[refunds[0]]:g} (quantity times price), "
            f"{len(refunds):,} rows of {len(money):,} are below 0; leave refunds out, or subtract "
            "them from their sales"
        )


def top_items(sales: Sales, cutoff: float, count: int) -> np.ndarray:
    """Return the numbers of the `count` items with the most buyers before `cutoff`."""
    early = sales.time < cutoff
    user = np.repeat(np.arange(len(sales.offsets) - 1), np.diff(sales.offsets))[early]
    pairs = np.unique(np.stack([user, sales.item[early]]), axis=1)
    buyers = np.bincount(pairs[1], minlength=len(sales.items))
    return np.argsort(-buyers, kind="stable")[:count]


class Aggregates:
    """What is counted before there is any model: recency, frequency, money, favourite items."""

    name, seed, similarity = "aggregates", 0, slice(None)

    def __init__(self, sales: Sales, products: np.ndarray) -> None:
        """`products` (k,) are the items that are counted one by one."""
        self.sales, self.products = sales, products
        self.blocks = one_block(COUNTED + len(products))
        self.fingerprint = f"aggregates-{len(products)}-{sales.source[:16]}"

    def users(self, past: Snapshot) -> np.ndarray:
        """Return (n, 16 + k) logs of counts of the sales before each user's moment."""
        rows = self.sales.between(past.users, -np.inf, past.cutoff)
        return counted(self.sales, rows, past.cutoff, self.products)


def counted(sales: Sales, rows: Ragged, cutoff: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Return (n, 16 + k) float32, log(1 + x), of n users' lines of sales `rows` before `cutoff`.

    Days since the last and the first sale, invoices, lines and money in WINDOWS, money an invoice,
    distinct items, and the lines of each of `products` (k,). A user without lines has zeros.
    ValueError for a line at `cutoff` or after it.
    """
    n, line = len(rows), rows.values
    user = np.repeat(np.arange(n), rows.lengths)
    age = (cutoff[user] - sales.time[line]) / DAY
    if len(line) and not (age.min() > 0 and age.max() < np.inf):
        raise ValueError(
            f"a sale {age.min():g} days before its user's moment: aggregates read sales before a "
            "finite moment alone, the others are what the task asks for"
        )
    _, first = np.unique(np.stack([user, sales.invoice[line]]), axis=1, return_index=True)
    is_first = np.zeros(len(line), bool)
    is_first[first] = True
    newest, oldest = np.full(n, np.inf), np.zeros(n)
    np.minimum.at(newest, user, age)
    np.maximum.at(oldest, user, age)
    columns = [np.where(rows.lengths > 0, newest, 0), oldest]
    for days in WINDOWS:
        near = age <= days
        columns.append(np.bincount(user[near & is_first], minlength=n))
        columns.append(np.bincount(user[near], minlength=n))
        columns.append(np.bincount(user[near], sales.money[line][near], minlength=n))
    columns.append(columns[-1] / np.maximum(columns[-3], 1))
    distinct = np.unique(np.stack([user, sales.item[line]]), axis=1)
    columns.append(np.bincount(distinct[0], minlength=n))
    column_of = np.full(len(sales.items), len(products))
    column_of[products] = np.arange(len(products))
    bought = np.zeros((n, len(products) + 1))
    np.add.at(bought, (user, column_of[sales.item[line]]), 1)
    return np.log1p(np.concatenate([np.stack(columns, axis=1), bought[:, :-1]], axis=1)).astype(
        np.float32
    )
