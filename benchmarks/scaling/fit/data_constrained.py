"""The law of data that are read again: each further reading, and excess size, is worth less.

Muennighoff et al. 2023, "Scaling Data-Constrained Language Models" (arXiv 2305.16264), section 3:

    L  = E + A N'^-alpha + B D'^-beta
    D' = U + U r (1 - exp(-(D / U - 1) / r))          U distinct of D read, r = r_data
    N' = V + V s (1 - exp(-(N / V - 1) / s))          V = min(N, best size for U), s = r_params

The best size for U is where a further FLOP (6 N D) buys as much by N as by D, once E, A, B, alpha
and beta are given: N = G (G U)^(beta / alpha), G = (alpha A / (beta B))^(1 / (alpha + beta)).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks.scaling.fit.laws import FARTHEST, PowerLaw

FLATTEST = 0.01  # bound of both exponents: the best size has beta / alpha in its power
WORTH = (
    np.log(0.05),
    np.log(1e4),
)  # bounds of log r: from worthless repetition to that of new data


class _Parts(NamedTuple):
    """Effective N and D (..., n), and what their derivatives need."""

    size: np.ndarray
    data: np.ndarray
    best: np.ndarray
    excess: np.ndarray  # N / V - 1
    again: np.ndarray  # D / U - 1


@dataclass(frozen=True)
class RepeatedLaw:
    """L(N, D, U); parameters E, c and a of N, c and a of D, log r_data and log r_params.

    Factors (n, 3) are the size, the pairs read and the distinct pairs; `centre` (2,) is of the
    logs of the first two.
    """

    factors: tuple[str, str, str]
    centre: tuple[float, float]

    @staticmethod
    def on(factors: tuple[str, str, str], x: np.ndarray) -> "RepeatedLaw":
        """Return the law centred on the factors (n, 3) of the runs."""
        middle = np.log(x).mean(0)
        return RepeatedLaw(factors, (float(middle[0]), float(middle[1])))

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters in order."""
        size, data, _ = self.factors
        return ("E", f"c_{size}", f"a_{size}", f"c_{data}", f"a_{data}", "log_r_data", "log_r_size")

    @property
    def _plain(self) -> PowerLaw:
        return PowerLaw(self.factors[:2], self.centre)

    def _parts(self, theta: np.ndarray, x: np.ndarray) -> _Parts:
        size, read, distinct = (np.log(column) for column in x.T)
        distinct = np.minimum(distinct, read)
        best = np.minimum(size, self._log_best(theta, distinct))
        excess, again = np.exp(size - best) - 1, np.exp(read - distinct) - 1
        r, s = np.exp(theta[..., 5, None]), np.exp(theta[..., 6, None])
        grown = np.exp(best) * (1 - s * np.expm1(-excess / s))
        data = np.exp(distinct) * (1 - r * np.expm1(-again / r))
        return _Parts(grown, data, best, excess, again)

    def _log_best(self, theta: np.ndarray, distinct: np.ndarray) -> np.ndarray:
        """Return the log of the best size (..., n) for logs of distinct pairs (n,)."""
        _, c, alpha, d, beta = (theta[..., i, None] for i in range(5))
        log_a, log_b = c + alpha * self.centre[0], d + beta * self.centre[1]
        log_g = (np.log(alpha / beta) + log_a - log_b) / (alpha + beta)
        return np.clip(log_g + beta / alpha * (distinct + log_g), -FARTHEST, FARTHEST)

    def loss(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the loss (..., n)."""
        parts = self._parts(theta, x)
        return theta[..., :1] + sum(self._terms(theta, parts))

    def _terms(self, theta: np.ndarray, parts: _Parts) -> tuple[np.ndarray, np.ndarray]:
        _, c, alpha, d, beta = (theta[..., i, None] for i in range(5))
        return (
            np.exp(c - alpha * (np.log(parts.size) - self.centre[0])),
            np.exp(d - beta * (np.log(parts.data) - self.centre[1])),
        )

    def slopes(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the derivatives (..., n, 7) of the log loss.

        The best size depends on the exponents and heights, which is the second part of theirs.
        """
        parts = self._parts(theta, x)
        by_size, by_data = self._terms(theta, parts)
        total = theta[..., :1] + by_size + by_data
        _, c, alpha, d, beta, r, s = (theta[..., i, None] for i in range(7))
        r, s = np.exp(r), np.exp(s)
        # d N' / d log V, and d N' / d log s; the same for D and r
        faded = np.exp(-parts.excess / s)
        by_best = np.exp(parts.best) * (1 + s * (1 - faded) - faded * (1 + parts.excess))
        by_best *= parts.excess > 0
        by_s = np.exp(parts.best) * (s * (1 - faded) - parts.excess * faded)
        tired = np.exp(-parts.again / r)
        distinct = np.minimum(x[:, 1], x[:, 2])
        by_r = distinct * (r * (1 - tired) - parts.again * tired)
        # d log V by c, alpha, d, beta, where it is below N
        log_a, log_b = c + alpha * self.centre[0], d + beta * self.centre[1]
        both, more = alpha + beta, 1 + beta / alpha
        log_g = (np.log(alpha / beta) + log_a - log_b) / both
        reach = np.log(distinct) + log_g
        g_alpha = (1 / alpha + self.centre[0] - log_g) / both
        g_beta = (-1 / beta - self.centre[1] - log_g) / both
        chain = -alpha / parts.size * by_best
        one = np.ones_like(total)
        slopes = [
            one,
            by_size * (1 + chain * more / both),
            by_size * (self.centre[0] - np.log(parts.size))
            + by_size * chain * (more * g_alpha - beta / alpha**2 * reach),
            by_data - by_size * chain * more / both,
            by_data * (self.centre[1] - np.log(parts.data))
            + by_size * chain * (more * g_beta + reach / alpha),
            -by_data * beta / parts.data * by_r,
            -by_size * alpha / parts.size * by_s,
        ]
        return np.stack([part / total for part in slopes], -1)

    def bounds(self, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return E in [0, the least loss), exponents from FLATTEST, both r in WORTH."""
        low, high = self._plain.bounds(losses)
        low[[2, 4]] = FLATTEST
        return np.r_[low, WORTH[0], WORTH[0]], np.r_[high, WORTH[1], WORTH[1]]

    def starts(self, losses: np.ndarray) -> np.ndarray:
        """Return every fourth start of the plain law with two values of each r."""
        plain = self._plain.starts(losses)[::4]
        return np.array([[*p, np.log(r), np.log(s)] for p in plain for r in (3, 30) for s in (5,)])

    def coefficients(self, theta: np.ndarray) -> Mapping[str, float]:
        """Return E, A and a of size and data, r_data and r_size."""
        plain = self._plain.coefficients(theta[:5])
        r, s = np.exp(theta[5:])
        return {**plain, "r_data": float(r), "r_size": float(s)}
