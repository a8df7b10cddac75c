"""G, geometry: how user vectors lie on the sphere, whatever a task asks of them; and a map of them.

Alignment and uniformity (Wang & Isola 2020, with alpha = t = 2), effective rank (Roy & Vetterli
2007), hubness (the skewness of the k-occurrence, Radovanovic et al. 2010). The suite writes
OUT/geometry.json and OUT/map.json, of one fixed sample of held-out users.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import skew

from benchmarks.baselines.tfidf import unit
from benchmarks.json_files import plain
from benchmarks.protocols import Model
from benchmarks.snapshot import snapshot_at
from benchmarks.suite.user_map import Groups, flat_map, groups_of
from clue.atomic import write_text
from clue.data.corpus import Corpus
from clue.evaluation.matching import MatchingPairs, matching_pairs

NEIGHBOURS = 10  # k of hubness, as in Radovanovic et al.
PAIRED = 1000  # users of each pair of services whose two vectors are compared


@dataclass(frozen=True)
class Geometry:
    """Of unit vectors: `alignment` in [0, 4] over `pairs` of vectors of one user, NaN without.

    `uniformity` in [-8, 0], lower is more uniform; `effective_rank` of at most `width`; `hubness`
    is 0 where every user is as often among the nearest of others, and grows with hubs.
    """

    alignment: float
    uniformity: float
    effective_rank: float
    hubness: float
    width: int
    users: int
    pairs: int


def alignment(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean squared distance of the rows of `a` and `b` (n, E), NaN of none."""
    return float(((a - b) ** 2).sum(1).mean()) if len(a) else float("nan")


def uniformity(vectors: np.ndarray) -> float:
    """Return log mean exp(-2 d^2) over all pairs of two of the unit rows (n, E)."""
    cosines = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)].astype(np.float64)
    return float(np.log(np.exp(-2 * (2 - 2 * cosines)).mean()))


def effective_rank(vectors: np.ndarray) -> float:
    """Return exp of the entropy of the singular values of (n, E), divided by their sum."""
    strengths = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
    share = strengths / strengths.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def hubness(vectors: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Return the skewness of how often each unit row (n, E) is among the k nearest of another.

    Of k rows or fewer each is near every other: nobody is a hub, and the figure is 0.
    """
    if len(vectors) <= k:
        return 0.0
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    occurrence = np.bincount(nearest.ravel(), minlength=len(vectors)).astype(float)
    return float(skew(occurrence)) if occurrence.std() else 0.0


def geometry_of(vectors: np.ndarray, a: np.ndarray, b: np.ndarray) -> Geometry:
    """Return the figures of users' vectors (n, E), and of two vectors each of others, `a` and `b`.

    All are made unit first; users whose vector is zero are left out.
    """
    some = unit(vectors[np.linalg.norm(vectors, axis=1) > 0])
    return Geometry(
        alignment=alignment(unit(a), unit(b)),
        uniformity=uniformity(some),
        effective_rank=effective_rank(some),
        hubness=hubness(some),
        width=some.shape[1],
        users=len(some),
        pairs=len(a),
    )


def write(out: Path, models: Sequence[Model], corpus: Corpus) -> None:
    """Write OUT/geometry.json of the models and OUT/map.json of the first one.

    A model that is there with the same fingerprint, on the same corpus, is not measured again.
    """
    out.mkdir(parents=True, exist_ok=True)
    groups = groups_of(corpus, None, None)
    pairs = _pairs(corpus)
    file = out / "geometry.json"
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    measured: dict[str, Any] = {}
    for number, model in enumerate(models):
        key = f"{model.name}.{model.seed}"
        made_of = f"{corpus.fingerprint} {model.fingerprint}"
        drawn = number > 0 or (out / "map.json").is_file()
        if drawn and known.get(key, {}).get("made_of") == made_of:
            measured[key] = known[key]
            continue
        sys.stderr.write(f"geometry: {model.name} {model.seed}\n")
        vectors = model.users(snapshot_at(corpus, groups.users))[:, model.similarity]
        a, b = _both(model, corpus, pairs)
        figures = asdict(geometry_of(vectors, a, b))
        measured[key] = {"model": model.name, "seed": model.seed, "made_of": made_of, **figures}
        if number == 0:
            write_text(out / "map.json", json.dumps(map_of(model, groups, vectors)) + "\n")
    write_text(file, json.dumps(plain(measured), allow_nan=False) + "\n")


def map_of(model: Model, groups: Groups, vectors: np.ndarray) -> dict[str, Any]:
    """Return two coordinates of each user, in thousandths, and their group, for the report."""
    points = flat_map(vectors)
    low, high = points.min(0), points.max(0)
    placed = np.round((points - low) / np.where(high > low, high - low, 1) * 1000).astype(int)
    return {
        "model": f"{model.name} {model.seed}",
        "meaning": groups.meaning,
        "names": groups.names,
        "points": placed.tolist(),
        "groups": groups.number.tolist(),
    }


def _pairs(corpus: Corpus) -> list[MatchingPairs]:
    """Held-out users of every two services, at most PAIRED each; of one service, nobody."""
    if len(corpus.services) < 2:
        return []
    held_out = np.flatnonzero(corpus.split > 0)
    return matching_pairs(corpus, held_out, max_events=1, most=PAIRED)


def _both(
    model: Model, corpus: Corpus, pairs: Sequence[MatchingPairs]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of one service and of the other, all pairs of services in turn."""
    sides: list[list[np.ndarray]] = [[], []]
    for pair in pairs:
        for side, service in zip(sides, (pair.service_a, pair.service_b), strict=True):
            past = snapshot_at(corpus, pair.users, services=[service])
            side.append(model.users(past)[:, model.similarity])
    if not pairs:
        return np.zeros((0, 1)), np.zeros((0, 1))
    a, b = (np.concatenate(side) for side in sides)
    return a, b
