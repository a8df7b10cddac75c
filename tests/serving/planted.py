"""A small index whose vectors are known, for tests that need no model."""

import numpy as np
import pyarrow as pa

from serving.contents import Contents, content_of

SERVICES = ["films", "news", "empty"]


def unit(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    vectors = rng.standard_normal((rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def contents(*, items: int = 60, users: int = 25, width: int = 8, seed: int = 0) -> Contents:
    """Items alternate between two services (a third has none); user n saw items n, n + 1, n + 2."""
    rng = np.random.default_rng(seed)
    service = (np.arange(items) % 2).astype(np.uint8)
    # Items 0 and 2 of the films share their text.
    texts = [f"text {max(n, 2) if n in (0, 2) else n}" for n in range(items)]
    names = [SERVICES[s] for s in service]
    ids = [f"item {n}" for n in range(items)]
    return Contents(
        model_fingerprint="m" * 64,
        corpus_fingerprint="c" * 64,
        corpus_name="planted",
        templates={"films": "{title} for $9.99"},
        services=SERVICES,
        item_ids=pa.array(ids, pa.large_string()),
        item_texts=pa.array(texts, pa.large_string()),
        item_service=service,
        item_content=np.array([*map(content_of, names, texts)], np.uint64),
        item_key=np.array([*map(content_of, names, ids)], np.uint64),
        item_vectors=unit(rng, items, width),
        user_ids=pa.array(sorted(f"user {n}" for n in range(users)), pa.large_string()),
        user_vectors=unit(rng, users, width),
        seen_values=(np.arange(users)[:, None] + np.arange(3)).astype(np.int32).ravel(),
        seen_offsets=np.arange(users + 1, dtype=np.int64) * 3,
    )
