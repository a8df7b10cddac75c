"""How vectors are written: as numbers, base64 of floats or of bytes, or the bare floats."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from fastapi import Request, Response

from serving.problems import invalid

Columns = Mapping[str, tuple[int, int]]
Format = Literal["float", "base64", "int8"]
OCTETS = "application/octet-stream"


def leading(
    vectors: np.ndarray, blocks: Columns, dimensions: int | None
) -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """Return the first `dimensions` columns of vectors (n, E), all without, and their blocks.

    Raises Problem 422 unless they are whole blocks: a model has no smaller vector inside a block,
    and a part of one is nothing that was trained to be compared.
    """
    if dimensions is None:
        return vectors, dict(blocks)
    ends = [stop for _, stop in blocks.values()] or [vectors.shape[1]]
    if dimensions not in ends:
        allowed = ", ".join(map(str, ends))
        detail = f"is one of {allowed} here: the first blocks, whole; a part of one is no vector"
        raise invalid([("/dimensions", detail)])
    kept = {name: columns for name, columns in blocks.items() if columns[1] <= dimensions}
    return vectors[:, :dimensions], kept


def written(vectors: np.ndarray, blocks: Columns, form: Format) -> list[dict[str, Any]]:
    """Return for each of vectors (n, E) its `vector`, and for int8 the `scales` of its blocks.

    base64 is of little-endian float32, or of int8, of which a block's scale makes floats again: the
    largest coordinate of the block is 127 scales, so that a small block is not lost in a large one.
    """
    rows = np.ascontiguousarray(vectors, "<f4")
    if form == "float":
        return [{"vector": row} for row in rows]
    if form == "base64":
        return [{"vector": base64.b64encode(row.tobytes()).decode("ascii")} for row in rows]
    spans = list(blocks.values()) or [(0, rows.shape[1])]
    scales = np.stack([np.abs(rows[:, a:b]).max(1, initial=0.0) / 127 for a, b in spans], 1)
    scales[scales == 0] = 1
    each = np.repeat(scales, [b - a for a, b in spans], axis=1)
    whole = np.rint(rows / each).astype(np.int8)
    return [
        {"vector": base64.b64encode(row.tobytes()).decode("ascii"), "scales": own}
        for row, own in zip(whole, scales, strict=True)
    ]


def wants_octets(request: Request) -> bool:
    """Return whether the client accepts vectors as nothing but their floats."""
    return OCTETS in request.headers.get("accept", "")


def octets(vectors: np.ndarray, blocks: Columns, stamp: Mapping[str, str]) -> Response:
    """Return vectors (n, E) as little-endian float32, row after row; the rest is in headers."""
    headers = {
        "x-rows": str(vectors.shape[0]),
        "x-width": str(vectors.shape[1]),
        "x-blocks": json.dumps(dict(blocks)),
        **{f"x-{name}": value for name, value in stamp.items()},
    }
    body = np.ascontiguousarray(vectors, "<f4").tobytes()
    return Response(body, headers=headers, media_type=OCTETS)
