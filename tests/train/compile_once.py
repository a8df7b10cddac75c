"""Compiles the encoders, takes three steps of different batches, and prints what was compiled."""

# pyright: standard

import json
import sys

from torch._dynamo.utils import counters

from clue.nn import attention
from clue.train.packing import pack
from tests.nn.test_dual_encoder import gradients_of, small_model, some_batch
from tests.train.varlen import fixed_budget, varlen


def main() -> None:
    """Compare each compiled step with the eager one."""
    attention.varlen_attn = varlen
    model = small_model()
    model.items.compile(dynamic=False, backend="aot_eager")
    model.users.compile(dynamic=False, backend="aot_eager")
    recomputed: list[int] = []
    differences: list[float] = []
    for rows, kept in (((2, 0, 3, 1), 25.0), ((0, 1, 2, 3), 0.0), ((3, 2, 1, 0), 1e9)):
        views = pack(some_batch(rows), fixed_budget(9, kept))[0]
        recomputed.append(sum(chunk.recompute for chunk in (*views.items, *views.histories)))
        eager, compiled = gradients_of(small_model(), views), gradients_of(model, views)
        model.zero_grad(set_to_none=True)
        differences += [(compiled[key] - eager[key]).abs().max().item() for key in eager]
    found = {
        "compared": len(differences),
        "worst": max(differences),
        "recomputed": recomputed,
        "graphs": counters["stats"]["unique_graphs"],
        "recompiles": sum(counters["recompiles"].values()),
        "breaks": sum(counters["graph_break"].values()),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
