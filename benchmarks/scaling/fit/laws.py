"""The forms of a scaling law: a floor and one falling power of each factor.

    PowerLaw       L = E + sum_i A_i x_i^-a_i, or without E: L(C), L(N), L(D), L(N, D) ...
    RepeatedLaw    L(N, D, U): D pairs of which only U are distinct count for less

(Hoffmann et al. 2022, arXiv 2203.15556; Muennighoff et al. 2023, arXiv 2305.16264.) Logarithms are
centred on the runs: on the Chinchilla data 40 % of starts reach the optimum with raw parameters
and tight tolerances, all of them centred. Of parameters theta (..., p) and factors (n, k) a law
returns the `loss` (..., n) and its `slopes` (..., n, p), the derivatives of the log loss: a fit
hands over one theta, a bootstrap all of its own. For the losses (n,) of runs it has `bounds`, the
least and greatest theta (p,), and a grid of `starts` (m, p).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

STEEPEST = 3.0  # bound of an exponent
FLATTEST = 0.01  # that of repeated data: the best size has beta / alpha in its power
FARTHEST = 60.0  # bound of a logarithm; e^60 losses are no losses
WORTH = np.log([0.05, 1e4])  # bounds of log r: from worthless repetition to that of new data


@dataclass(frozen=True)
class PowerLaw:
    """L = E + sum_i exp(c_i - a_i (log x_i - centre_i)); E is left out if not `irreducible`."""

    factors: tuple[str, ...]
    centre: tuple[float, ...]
    irreducible: bool = True

    @staticmethod
    def on(factors: Sequence[str], x: np.ndarray, *, irreducible: bool = True) -> "PowerLaw":
        """Return the law centred on the factors (n, k) of the runs."""
        return PowerLaw(tuple(factors), tuple(np.log(x).mean(0).tolist()), irreducible)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters in order: E where the law has one, then c and a of each factor."""
        each = [name for x in self.factors for name in (f"c_{x}", f"a_{x}")]
        return (*(["E"] if self.irreducible else []), *each)

    def loss(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the loss (..., n)."""
        terms = self._terms(theta, x).sum(-1)
        return terms + theta[..., :1] if self.irreducible else terms

    def slopes(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the derivatives (..., n, p) of the log loss."""
        terms = self._terms(theta, x)
        total = terms.sum(-1) + (theta[..., :1] if self.irreducible else 0.0)
        share = terms / total[..., None]
        logs = np.log(x) - np.array(self.centre)
        parts = [1 / total] if self.irreducible else []
        for i in range(len(self.factors)):
            parts += [share[..., i], -share[..., i] * logs[:, i]]
        return np.stack(parts, -1)

    def _terms(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        first = int(self.irreducible)
        c, a = theta[..., None, first::2], theta[..., None, first + 1 :: 2]
        power = c - a * (np.log(x) - np.array(self.centre))
        return np.exp(np.clip(power, -3 * FARTHEST, 3 * FARTHEST))

    def bounds(self, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return E in [0, the least loss), a in [0, STEEPEST]."""
        floor = [(0.0, float(losses.min()) * (1 - 1e-9))] if self.irreducible else []
        each = [(-FARTHEST, FARTHEST), (0.0, STEEPEST)] * len(self.factors)
        low, high = zip(*floor, *each, strict=True)
        return np.array(low), np.array(high)

    def starts(self, losses: np.ndarray) -> np.ndarray:
        """Return three floors, three heights and four exponents of each factor: 432 for two."""
        least, mean = float(losses.min()), float(losses.mean())
        floor = [[share * least for share in (0.1, 0.5, 0.9)]] if self.irreducible else []
        heights = [np.log(mean * share) for share in (0.03, 0.15, 0.6)]
        each = [heights, [0.1, 0.3, 0.6, 1.0]] * len(self.factors)
        return np.array(list(product(*floor, *each)))

    def coefficients(self, theta: np.ndarray) -> Mapping[str, float]:
        """Return E, A_x, a_x; of a single factor x0 = A^(1/a), where the term is 1."""
        first = int(self.irreducible)
        named = {"E": float(theta[0])} if self.irreducible else {}
        for i, name in enumerate(self.factors):
            c, a = theta[first + 2 * i : first + 2 * i + 2].tolist()
            with np.errstate(over="ignore"):
                named[f"A_{name}"] = float(np.exp(c + a * self.centre[i]))
                if len(self.factors) == 1 and a > 0:
                    named[f"{name}0"] = float(np.exp(c / a + self.centre[i]))
            named[f"a_{name}"] = a
        return named

    def parameters(self, published: Mapping[str, float]) -> np.ndarray:
        """Return the parameters (p,) that the published coefficients E, A_x and a_x are."""
        theta = [published["E"]] if self.irreducible else []
        for x, centre in zip(self.factors, self.centre, strict=True):
            slope = published[f"a_{x}"]
            theta += [np.log(published[f"A_{x}"]) - slope * centre, slope]
        return np.array(theta)


@dataclass(frozen=True)
class RepeatedLaw:
    """L(N, D, U) = E + A N'^-alpha + B D'^-beta: further readings and excess size are worth less.

        D' = U + U r (1 - exp(-(D / U - 1) / r))          U distinct of D read, r = r_data
        N' = V + V s (1 - exp(-(N / V - 1) / s))          V = min(N, best size for U), s = r_size

    (Muennighoff et al. 2023, section 3.) The best size is where a further FLOP (6 N D) buys as much
    by N as by D: G (G U)^(beta / alpha), G = (alpha A / (beta B))^(1 / (alpha + beta)). Parameters
    are E, c and a of N, c and a of D, log r and log s; `centre` is of the logs of N and D.
    """

    factors: tuple[str, str, str]
    centre: tuple[float, float]

    @staticmethod
    def on(factors: Sequence[str], x: np.ndarray) -> "RepeatedLaw":
        """Return the law centred on the factors (n, 3) of the runs."""
        size, data, distinct = factors
        middle = np.log(x).mean(0).tolist()
        return RepeatedLaw((size, data, distinct), (middle[0], middle[1]))

    @property
    def _plain(self) -> PowerLaw:
        return PowerLaw(self.factors[:2], self.centre)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters in order."""
        return (*self._plain.names, "log_r_data", "log_r_size")

    def _log_g(self, theta: np.ndarray) -> np.ndarray:
        _, c, alpha, d, beta = (theta[..., i, None] for i in range(5))
        log_a, log_b = c + alpha * self.centre[0], d + beta * self.centre[1]
        return (np.log(alpha / beta) + log_a - log_b) / (alpha + beta)

    def _parts(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return effective N and D, log of V, N / V - 1 and D / U - 1 (..., n)."""
        size, read, distinct = (np.log(column) for column in x.T)
        distinct = np.minimum(distinct, read)
        log_g = self._log_g(theta)
        wanted = log_g + theta[..., 4, None] / theta[..., 2, None] * (distinct + log_g)
        best = np.minimum(size, np.clip(wanted, -FARTHEST, FARTHEST))
        excess, again = np.exp(size - best) - 1, np.exp(read - distinct) - 1
        r, s = np.exp(theta[..., 5, None]), np.exp(theta[..., 6, None])
        grown = np.exp(best) * (1 - s * np.expm1(-excess / s))
        data = np.exp(distinct) * (1 - r * np.expm1(-again / r))
        return grown, data, best, excess, again

    def _terms(
        self, theta: np.ndarray, size: np.ndarray, data: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        _, c, alpha, d, beta = (theta[..., i, None] for i in range(5))
        return (
            np.exp(c - alpha * (np.log(size) - self.centre[0])),
            np.exp(d - beta * (np.log(data) - self.centre[1])),
        )

    def loss(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the loss (..., n)."""
        size, data, *_ = self._parts(theta, x)
        return theta[..., :1] + sum(self._terms(theta, size, data))

    def slopes(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the derivatives (..., n, 7) of the log loss.

        The best size depends on the exponents and heights, which is the second part of theirs.
        """
        size, data, best, excess, again = self._parts(theta, x)
        by_size, by_data = self._terms(theta, size, data)
        total = theta[..., :1] + by_size + by_data
        _, _, alpha, _, beta, r, s = (theta[..., i, None] for i in range(7))
        r, s = np.exp(r), np.exp(s)
        # d N' / d log V, and d N' / d log s; the same for D and r
        faded, tired = np.exp(-excess / s), np.exp(-again / r)
        by_best = np.exp(best) * (1 + s * (1 - faded) - faded * (1 + excess)) * (excess > 0)
        by_s = np.exp(best) * (s * (1 - faded) - excess * faded)
        distinct = np.minimum(x[:, 1], x[:, 2])
        by_r = distinct * (r * (1 - tired) - again * tired)
        # d log V by c, alpha, d, beta, where it is below N
        both, more, log_g = alpha + beta, 1 + beta / alpha, self._log_g(theta)
        reach = np.log(distinct) + log_g
        g_alpha = (1 / alpha + self.centre[0] - log_g) / both
        g_beta = (-1 / beta - self.centre[1] - log_g) / both
        chain = -alpha / size * by_best
        slopes = [
            np.ones_like(total),
            by_size * (1 + chain * more / both),
            by_size * (self.centre[0] - np.log(size))
            + by_size * chain * (more * g_alpha - beta / alpha**2 * reach),
            by_data - by_size * chain * more / both,
            by_data * (self.centre[1] - np.log(data))
            + by_size * chain * (more * g_beta + reach / alpha),
            -by_data * beta / data * by_r,
            -by_size * alpha / size * by_s,
        ]
        return np.stack([part / total for part in slopes], -1)

    def bounds(self, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return E in [0, the least loss), exponents from FLATTEST, both log r in WORTH."""
        low, high = self._plain.bounds(losses)
        low[[2, 4]] = FLATTEST
        return np.r_[low, WORTH[0], WORTH[0]], np.r_[high, WORTH[1], WORTH[1]]

    def starts(self, losses: np.ndarray) -> np.ndarray:
        """Return every fourth start of the plain law with two values of r."""
        plain = self._plain.starts(losses)[::4]
        return np.array([[*theta, np.log(r), np.log(5)] for theta in plain for r in (3, 30)])

    def coefficients(self, theta: np.ndarray) -> Mapping[str, float]:
        """Return E, A and a of size and data, r_data and r_size."""
        r, s = np.exp(theta[5:]).tolist()
        return {**self._plain.coefficients(theta[:5]), "r_data": r, "r_size": s}


Law = PowerLaw | RepeatedLaw
