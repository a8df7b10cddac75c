"""What a log says of items and users before a moment: counts and smoothed rates, for a probe.

Nothing at a query's moment or after it is counted, so that no label is among what predicts it.
"""

from collections.abc import Callable

import numpy as np

from benchmarks.metrics.calibration import log_losses

SMOOTHING = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # rows at the mean rate that a key starts with


class Timeline:
    """Rows of a log by key and time, such as impressions by item with 1 for a click."""

    def __init__(self, keys: np.ndarray, times: np.ndarray, values: np.ndarray) -> None:
        """`keys` (n,) are integers from 0, `times` (n,) any clock, `values` (n,) are summed."""
        self._times = np.unique(times)
        code = self._code(keys, np.searchsorted(self._times, times))
        order = np.argsort(code, kind="stable")
        self._codes = code[order]
        self._total = np.r_[0.0, np.cumsum(values[order], dtype=np.float64)]

    def _code(self, keys: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        return keys.astype(np.int64) * (len(self._times) + 1) + ranks

    def before(
        self, keys: np.ndarray, moments: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the count and the sum of each key's rows before each moment, (q,) both."""
        moments = np.broadcast_to(np.asarray(moments, np.float64), keys.shape)
        ends = np.searchsorted(self._codes, self._code(keys, np.searchsorted(self._times, moments)))
        starts = np.searchsorted(self._codes, self._code(keys, np.zeros(len(keys), np.int64)))
        return (ends - starts).astype(np.float64), self._total[ends] - self._total[starts]

    def between(
        self, keys: np.ndarray, start: np.ndarray | float, end: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the count and the sum of each key's rows in start <= time < end, (q,) both."""
        (count, total), (early, early_total) = self.before(keys, end), self.before(keys, start)
        return count - early, total - early_total


class Rates:
    """The share of ones among a key's rows before a moment, smoothed by that of all rows."""

    def __init__(self, keys: np.ndarray, times: np.ndarray, ones: np.ndarray) -> None:
        """`keys`, `times` and `ones` (n,), the last 0 or 1, are the rows of the log."""
        self._each = Timeline(keys, times, ones)
        self._all = Timeline(np.zeros(len(keys), np.int64), times, ones)

    def log_odds(
        self, keys: np.ndarray, moments: np.ndarray | float, smoothing: float
    ) -> np.ndarray:
        """Return log(p / (1 - p)) (q,) for p = (ones + s * mean) / (rows + s).

        The mean is that of all rows before the moment, with half a one in one row more.
        """
        count, ones = self._each.before(keys, moments)
        all_rows, total = self._all.before(np.zeros(len(keys), np.int64), moments)
        mean = (total + 0.5) / (all_rows + 1)
        rate = (ones + smoothing * mean) / (count + smoothing)
        return np.log(rate / (1 - rate))

    def tuned(self, keys: np.ndarray, moments: np.ndarray | float, labels: np.ndarray) -> float:
        """Return the smoothing of the least log loss on the valid queries (q,)."""
        return least(
            SMOOTHING,
            lambda s: float(
                log_losses(1 / (1 + np.exp(-self.log_odds(keys, moments, s))), labels).mean()
            ),
        )


def least(grid: tuple[float, ...], loss: Callable[[float], float]) -> float:
    """Return the value of the grid with the least loss, the first of equals."""
    return min(grid, key=loss)
