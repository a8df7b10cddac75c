"""What comes next of users in several services: the last states of one history, or of several."""

from collections.abc import Sequence

import numpy as np
import torch

from clue.data.marks import MarkTable, carried, merge_marked
from clue.data.ragged import Ragged
from clue.evaluation.encode import predictive_states
from clue.inference.pooling import Amounts, Part, Service
from clue.nn.predictive import PredictiveEncoder


def joined_states(
    model: PredictiveEncoder,
    items: torch.Tensor,
    table: MarkTable,
    parts: Sequence[Part],
    services: Sequence[Service],
    amounts: Sequence[Amounts],
) -> np.ndarray:
    """Return the predictive block (n, D) of users with these (items, times) of each service.

    `items` (I, D) are the vectors of the items. Services whose times are a clock's are one history
    by time; of several histories it is the mean. `amounts` are the numeric fields by name, perhaps
    of no service.
    """
    timed = [number for number, service in enumerate(services) if service.clock]
    apart = [[number] for number, service in enumerate(services) if not service.clock]
    total = np.zeros((len(parts[0][0]), model.config.width), np.float32)
    count = np.zeros(len(total), np.int64)
    for group in [*([timed] if timed else []), *apart]:
        its_parts = [parts[number] for number in group]
        marks: np.ndarray | None = None
        if model.marks is None:
            ordered = [(events, carried(times)) for events, times in its_parts]
            histories = Ragged.merge_by_time(ordered)[0]
        else:
            of_events: list[np.ndarray] = []
            for number, (_, times) in zip(group, its_parts, strict=True):
                named = amounts[number] if amounts else {}
                values = {name: each.values for name, each in named.items()}
                service = services[number]
                of_events.append(table.of(service.row, times, service.clock, values))
            histories, marks = merge_marked(its_parts, of_events)
        total += predictive_states(model, items, histories, marks).numpy()
        count += histories.lengths > 0
    return total / np.maximum(count, 1)[:, None].astype(np.float32)
