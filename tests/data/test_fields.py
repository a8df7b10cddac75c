"""Fields become codes as their definition says, for every shape of distribution."""

import bisect
import math

import numpy as np
import pytest

from clue.data.fields import MOST_BUCKETS, Field, learn_edges

MISSING, ZERO, FIRST = 0, 1, 2


def slow_code(value: float, edges: tuple[float, ...]) -> int:
    """The definition, a number at a time."""
    if math.isnan(value):
        return MISSING
    return ZERO if value == 0 else FIRST + bisect.bisect_right(edges, value)


def shapes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    plain = rng.lognormal(3, 2, 5000)
    spiky = np.concatenate([np.ones(9000), rng.integers(2, 500, 1000)])
    signed = np.where(rng.random(5000) < 0.03, -plain, plain)
    holes = np.where(rng.random(5000) < 0.5, np.nan, np.where(rng.random(5000) < 0.5, 0, plain))
    cases = {"plain": plain, "spiky": spiky, "signed": signed, "holes": holes}
    return {name: values.astype(np.float32) for name, values in cases.items()}


@pytest.mark.parametrize("name", ["plain", "spiky", "signed", "holes"])
def test_codes_are_those_of_the_definition_and_no_bucket_is_empty(name: str) -> None:
    values = shapes()[name]
    field = Field("amount", "numeric", learn_edges(values))
    codes = field.codes(values)
    assert codes.dtype == np.uint16
    assert codes.tolist() == [slow_code(value, field.edges) for value in values.tolist()]
    buckets = np.bincount(codes[codes >= FIRST] - FIRST)
    assert len(buckets) == len(field.edges) + 1 == field.num_codes - FIRST <= MOST_BUCKETS
    assert (buckets > 0).all() and set(field.edges) <= set(values.tolist())
    assert list(field.edges) == sorted(set(field.edges))


def test_buckets_hold_equal_counts_where_values_differ() -> None:
    values = shapes()["plain"]
    codes = Field("amount", "numeric", learn_edges(values)).codes(values)
    counts = np.bincount(codes - FIRST)
    assert len(counts) == MOST_BUCKETS
    assert counts.min() >= 77 and counts.max() <= 80  # 5,000 / 64 is 78.1


def test_zeros_and_missing_values_move_no_edge() -> None:
    values = shapes()["plain"]
    padded = np.concatenate([values, np.zeros(20_000), np.full(20_000, np.nan)])
    assert learn_edges(padded.astype(np.float32)) == learn_edges(values)


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        ([7.0, 7.0, 7.0], [2, 2, 2]),
        ([0.0, -0.0, 0.0], [1, 1, 1]),
        ([np.nan, np.nan], [0, 0]),
        ([], []),
        ([np.nan, 0.0, 1.0, 1.0, 2.0], [0, 1, 2, 2, 3]),
    ],
)
def test_fields_of_few_values(values: list[float], codes: list[int]) -> None:
    numbers = np.array(values, np.float32)
    field = Field("amount", "numeric", learn_edges(numbers))
    assert field.codes(numbers).tolist() == codes
    # What training users never had falls into the nearest bucket.
    assert field.codes(np.array([1e30], np.float32)).tolist() == [field.num_codes - 1]
    assert field.codes(np.array([-1e30], np.float32)).tolist() == [FIRST]


def test_codes_of_another_corpus_are_read_by_value() -> None:
    ours = Field("channel", "categorical", values=("web", "app", "shop"))
    theirs = Field("channel", "categorical", values=("app", "phone", "web"))
    codes = np.array([0, 1, 2, 3, 4, 2], np.uint16)  # missing, other, app, phone, web, app
    table = ours.translate(theirs)
    assert table.dtype == np.uint16 and table.shape == (theirs.num_codes,) == (5,)
    assert ours.codes(table[codes]).tolist() == [0, 1, 3, 1, 2, 3]
    assert ours.translate(ours).tolist() == list(range(ours.num_codes))


def test_codes_that_mean_nothing_are_refused() -> None:
    ours = Field("channel", "categorical", values=("web",))
    assert ours.codes(np.array([], np.uint16)).tolist() == []
    with pytest.raises(ValueError, match="'channel': code 3, and it has 3; translate"):
        ours.codes(np.array([0, 3], np.uint16))
    amount = Field("amount", "numeric", (1.0,))
    for one, other in ((amount, amount), (ours, amount), (ours, Field("channel", "boolean"))):
        with pytest.raises(ValueError, match="only the codes of two categorical or two boolean"):
            one.translate(other)
