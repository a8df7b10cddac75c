"""Items read once: the same vectors, bounded memory, the longest unread leave."""

import threading
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from clue.data.ragged import Ragged
from clue.inference.item_cache import Item, ItemCache, ItemsRead
from clue.inference.text_encoder import TextEncoder
from clue.inference.universal_encoder import UniversalEncoder
from tests.conftest import TinyRun

WIDTH, TOKENS = 24, 4


def planted(items: Sequence[Item]) -> ItemsRead:
    """Return what depends on the item alone, whatever stands beside it."""
    lengths = [1 + len(text) % TOKENS for _, text, _ in items]
    seeds = [abs(hash(item)) % 2**31 for item in items]
    vectors = [np.random.default_rng(seed).normal(size=WIDTH) for seed in seeds]
    return ItemsRead(
        Ragged.from_lists([[seed % 999] * n for seed, n in zip(seeds, lengths, strict=True)]),
        np.array([seed % 77 for seed in seeds]),
        {"one": torch.from_numpy(np.array(vectors, np.float32))},
    )


def assert_same(one: ItemsRead, other: ItemsRead) -> None:
    assert list(one.vectors) == list(other.vectors)
    for name, vectors in one.vectors.items():
        np.testing.assert_array_equal(vectors.numpy(), other.vectors[name].numpy())
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.tokens.values, other.tokens.values)
    np.testing.assert_array_equal(one.tokens.offsets, other.tokens.offsets)


def test_what_is_kept_is_what_was_made_and_memory_is_bounded() -> None:
    rng = np.random.default_rng(0)
    names = [("films", f"text {n}", None if n % 3 else f"id {n}") for n in range(5000)]
    counts: list[tuple[int, int]] = []
    cache = ItemCache(200_000, TOKENS, lambda *each: counts.append(each))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(150):
        few = rng.zipf(1.3, 200) % len(names)
        items = [names[n] for n in np.unique(few).tolist()]
        made = len(counts)
        assert_same(cache.read(items, planted), planted(items))
        assert sum(counts[made]) == len(items)
        assert cache.num_bytes <= 200_000
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    hits, misses = np.sum(counts, axis=0)
    assert hits > misses > cache.capacity > 100  # so that some were read again, and some left
    assert cache.capacity * 15 // 16 <= len(cache) <= cache.capacity
    assert taken < 1.2 * 200_000


def test_the_longest_unread_leave_first_and_more_than_there_may_be_are_read() -> None:
    read: list[str] = []

    def noted(items: Sequence[Item]) -> ItemsRead:
        read.extend(text for _, text, _ in items)
        return planted(items)

    cache = ItemCache(8 * 500, TOKENS)
    cache.read([("s", "first", None)], noted)
    size = cache.capacity
    assert 5 <= size <= 12
    cache.read([("s", f"{n}", None) for n in range(size - 1)], noted)
    cache.read([("s", "first", None)], noted)  # so that "0" is the longest unread
    cache.read([("s", "new", None)], noted)
    read.clear()
    cache.read([("s", "first", None), ("s", "0", None)], noted)
    assert read == ["0"]
    many = [("s", f"of many {n}", None) for n in range(3 * size)]
    assert_same(cache.read(many, noted), planted(many))
    assert len(cache) == size
    with pytest.raises(ValueError, match="max_bytes is 0"):
        ItemCache(0, TOKENS)


def test_items_are_told_apart_by_service_text_and_id() -> None:
    items = [("a", "b", None), ("ab", "", None), ("", "ab", None), ("a", "b", ""), ("a", "b", "1")]
    items += [("a", "1:b", None), ("a1:b", ";", None), ("b", "a", "1"), ("a", "1", "b")]
    cache = ItemCache(100_000, TOKENS)
    assert_same(cache.read(items, planted), planted(items))
    assert len(cache) == len(items)


def test_any_thread_may_read() -> None:
    cache = ItemCache(60_000, TOKENS)
    names = [("s", f"text {n}", None) for n in range(400)]
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(60):
                items = [names[n] for n in rng.choice(len(names), 30, replace=False).tolist()]
                assert_same(cache.read(items, planted), planted(items))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize("kind", [TextEncoder, UniversalEncoder])
def test_a_user_has_one_vector_alone_in_any_batch_and_from_kept_items(
    kind: type[TextEncoder | UniversalEncoder], tiny_run: TinyRun, tiny_universal: TinyRun
) -> None:
    run = tiny_run.run if kind is TextEncoder else tiny_universal.run
    plain, keeping = kind.load(run), kind.load(run)
    counts: list[tuple[int, int]] = []
    keeping.keep_items(10_000_000, lambda *each: counts.append(each))
    rng = np.random.default_rng(0)
    texts = [f"{a} {b}" for a in ("tea", "jam", "pan", "oven") for b in range(12)]
    users = [
        {
            name: [texts[n] for n in rng.integers(0, len(texts), rng.integers(1, 70))]
            for name in plain.services[: 1 + number % 3]
        }
        for number in range(24)
    ]
    whole = plain.encode(users)
    assert len(whole) == 24
    for number in range(0, 24, 5):
        np.testing.assert_allclose(plain.encode(users[number]), whole[number], atol=1e-5)
    np.testing.assert_allclose(keeping.encode(users[:9]), whole[:9], rtol=0, atol=1e-6)
    order = rng.permutation(24)
    shuffled = keeping.encode([users[n] for n in order])
    np.testing.assert_allclose(shuffled, whole[order], rtol=0, atol=1e-5)
    for number in range(24):
        alone = keeping.encode(users[number])
        np.testing.assert_allclose(alone, whole[number], rtol=0, atol=1e-5)
    assert counts[0][0] == 0
    assert all(misses == 0 for _, misses in counts[2:])
