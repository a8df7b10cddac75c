"""The leaderboard: tasks by models, with the rows that lose; for a template and as Markdown."""

from collections.abc import Mapping, Sequence

from benchmarks.metrics import format
from benchmarks.metrics.format import number, p_value, signed
from benchmarks.suite.significance import PairedDifference
from benchmarks.suite.summary import ORACLE, OURS, Row, TaskTable, compared, mean_gain, ranks

SHADES = 4  # the best row of a task has the first alone, the worst third stays plain


class Leaderboard:
    """The models that have most tasks, the best mean rank first, and a line for each task."""

    def __init__(self, tables: Sequence[TaskTable]) -> None:
        """Rank the models over the tasks that all of them have."""
        self.tables = tables
        models, common = compared(tables)
        self.ranks = ranks(common, models)
        self.models = sorted(models, key=lambda name: self.ranks.get(name, (0.0, 0.0))[0])
        self.common = len(common)
        self.gains = [number("gain", mean_gain(tables, name)[0]) for name in self.models]
        self.gain_tasks = mean_gain(tables, OURS)[1]

    @property
    def mean_ranks(self) -> list[str]:
        """The mean rank of each model over the common tasks, none without such tasks."""
        return [f"{self.ranks[name][0]:.2f}" for name in self.models if self.ranks]

    @property
    def borda(self) -> list[str]:
        """The Borda points of each model over the common tasks, none without such tasks."""
        return [f"{self.ranks[name][1]:g}" for name in self.models if self.ranks]

    def cells(self, table: TaskTable) -> list[tuple[Row, int] | None]:
        """Return the row and the rank from 1 of each model on a task, None without.

        The last is the best row of those that have no column.
        """
        order = {row.model: (row, rank) for rank, row in enumerate(table.ranked, 1)}
        other = next((model for model in order if model not in self.models), None)
        return [order.get(name) for name in self.models] + [order[other] if other else None]


def shade(rank: int, count: int) -> int:
    """Return the shade of a rank from 1 among `count`: 0 of the best alone, SHADES - 1 is plain."""
    return 1 + (rank - 2) * (SHADES - 1) // (count - 1) if rank > 1 else 0


def markdown(board: Leaderboard, against: Mapping[str, PairedDifference]) -> str:
    """Return the leaderboard as Markdown; `against` has the best baseline of each task.

    What reads the truth of a synthetic world has a column, and is not ranked.
    """
    rows = [name for table in board.tables for name in table.rows]
    oracles = sorted({name for name in rows if name.startswith(ORACLE)}, reverse=True)
    head = ["task", "measure", *board.models, "best other row", *oracles]
    head += [f"{OURS} - best baseline", "p (Holm)"]
    lines: list[list[str]] = []
    for table in board.tables:
        cells: list[str] = []
        for number_, cell in enumerate(board.cells(table)):
            text = number(table.measure, cell[0].value) if cell else ""
            if cell and number_ == len(board.models):
                text += f" {cell[0].model}"
            cells.append(f"**{text}**" if cell and cell[1] == 1 else text)
        known = [table.rows.get(name) for name in oracles]
        cells += [number(table.measure, row.value) if row else "" for row in known]
        one, better = against.get(table.name), " ↓" if table.lower_is_better else ""
        delta = f"{signed(table.measure, one.delta)} {one.baseline}" if one else ""
        p = p_value(one.holm) if one else ""
        lines.append([table.name, table.measure + better, *cells, delta, p])
    blank = [""] * (3 + len(oracles))
    if board.ranks:
        lines.append([f"mean rank ({board.common} tasks)", "", *board.mean_ranks, *blank])
        lines.append(["Borda", "", *board.borda, *blank])
    if board.gain_tasks:
        gains = f"mean normalised gain ({board.gain_tasks} tasks)"
        lines.append([gains, "", *board.gains, *blank])
    return format.markdown(head, lines) + "\n"
