"""The forms of a scaling law: a floor and one falling power of each factor.

    PowerLaw       L = E + sum_i A_i x_i^-a_i, or without E: L(C), L(N), L(D), L(N, D) ...
    RepeatedLaw    L(N, D, U): D pairs of which only U are distinct count for less

(Hoffmann et al. 2022, arXiv 2203.15556; Muennighoff et al. 2023, arXiv 2305.16264.) Logarithms are
centred on the runs: on the Chinchilla data 40 % of starts reach the optimum with raw parameters
and tight tolerances, all of them centred. A law is called with theta (..., p) and factors (n, k)
and gives (..., n): a fit hands over one theta, a bootstrap all of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np

STEEPEST = 3.0  # bound of an exponent
FARTHEST = 60.0  # bound of a logarithm; e^60 losses are no losses


class Law(Protocol):
    """A form with its centre; parameters are E (where it has one), then c_i and a_i by factor."""

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters in order."""
        ...

    @property
    def factors(self) -> tuple[str, ...]:
        """The columns of a run that it is a law of."""
        ...

    def loss(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the loss (..., n) at factors (n, k), which are not logarithms."""
        ...

    def slopes(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the derivatives (..., n, p) of the log loss by the parameters."""
        ...

    def bounds(self, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest value (p,) of each parameter."""
        ...

    def starts(self, losses: np.ndarray) -> np.ndarray:
        """Return a grid of starts (m, p) for the losses (n,) of the runs."""
        ...

    def coefficients(self, theta: np.ndarray) -> Mapping[str, float]:
        """Return what is published: E, A_x and a_x of each factor x; of a single one x0 too."""
        ...


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
        """The parameters in order."""
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
        found = {"E": float(theta[0])} if self.irreducible else {}
        for i, name in enumerate(self.factors):
            c, a = float(theta[first + 2 * i]), float(theta[first + 2 * i + 1])
            with np.errstate(over="ignore"):
                found[f"A_{name}"] = float(np.exp(c + a * self.centre[i]))
                if len(self.factors) == 1 and a > 0:
                    found[f"{name}0"] = float(np.exp(c / a + self.centre[i]))
            found[f"a_{name}"] = a
        return found


def from_coefficients(law: PowerLaw, found: Mapping[str, float]) -> np.ndarray:
    """Return the parameters (p,) that the published coefficients E, A_x and a_x are."""
    theta = [found["E"]] if law.irreducible else []
    for name, centre in zip(law.factors, law.centre, strict=True):
        theta += [np.log(found[f"A_{name}"]) - found[f"a_{name}"] * centre, found[f"a_{name}"]]
    return np.array(theta)
