"""How much memory a step may use: what is free, and what the activations of one position take."""

import resource
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from clue.data.batches import Batch
from clue.data.sequences import SequenceBatch
from clue.data.windows import WindowBatch
from clue.nn.decoder import NextItemDecoder
from clue.nn.dual_encoder import DualEncoder
from clue.nn.layout import Layout, fixed_shape, ranges
from clue.nn.predictive import PredictiveEncoder
from clue.train.losses.tiles import rows_per_tile
from clue.train.packing import Budget

# Positions of a chunk. On a processor small chunks stay in its cache; a GPU needs large ones to be
# busy: 32,768 x 512 wide in bf16 are 32 MiB a tensor.
CHUNK_CPU, CHUNK_CUDA = 4_096, 32_768
# Of the free memory that kept activations may take. At .6 a limit of 256 MiB broke at 4,096 pairs
# of a small model, at .3 it held 4,608: the rest is for temporaries, and what the heap keeps.
SHARE = 0.4
CGROUPS = (  # limit and use of a container: version 2 and version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def free_memory(device: torch.device, processes: int) -> int:
    """Return the bytes that this process may still take on `device`.

    On a processor `processes` share what the machine, its container and the limits of the process
    (`ulimit -v`, `ulimit -d`) leave.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [psutil.virtual_memory().available // processes]
    for limit, use in CGROUPS:
        if Path(limit).is_file() and (text := Path(limit).read_text().strip()) != "max":
            free.append((int(text) - int(Path(use).read_text())) // processes)
    own = psutil.Process().memory_info()
    for kind, used in ((resource.RLIMIT_AS, own.vms), (resource.RLIMIT_DATA, own.data)):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            free.append(soft - used)
    return max(0, min(free))


def find_budget(
    core: DualEncoder,
    batch: Batch,
    *,
    chunk_tokens: int | None,
    free: int,
    fixed: bool,
    autocast: Callable[[], AbstractContextManager[object]],
) -> Budget:
    """Return the budget of steps on batches like `batch`, of which `free` bytes may be taken.

    Chunks have `chunk_tokens` positions, or where that is None the device's usual number, halved
    until the activations of one take at most a quarter of what is free. What they take is measured
    on a chunk of the batch, the longest sequences that fit in. Raises ValueError where `free` does
    not even hold gradients, optimiser state and vectors of the batch.
    """
    device = core.log_scale.device
    weights = sum(p.numel() * p.element_size() for p in core.parameters())
    # gradients, two moments and a bucket for the exchange of gradients; each vector is there as
    # itself, its gradient, gathered, and sorted, in both; each position has three int64; of the
    # loss there are three tiles at a time
    vectors = len(batch.token_lengths) * core.config.item.width
    vectors += 2 * len(batch.event_lengths) * core.config.user.embedding
    positions = len(batch.tokens) + len(batch.events)
    pairs = len(batch.user)
    tiles = 3 * min(pairs, rows_per_tile(pairs, device)) * pairs
    left = free - 4 * weights - 6 * 4 * vectors - 3 * 8 * positions - 4 * tiles
    if left <= 0:
        raise ValueError(
            f"{free / 2**20:.0f} MiB are free, {(free - left) / 2**20:.0f} MiB are needed for the "
            "optimiser and the vectors of a batch; lower batch or the widths of the model"
        )
    tokens = chunk_tokens or (CHUNK_CUDA if device.type == "cuda" else CHUNK_CPU)
    with autocast():
        item, event = activation_bytes(core, batch, min(tokens, CHUNK_CPU))
    while chunk_tokens is None and tokens > 256 and tokens * max(item, event) > left / 4:
        tokens //= 2
    shapes = None
    if fixed:
        longest = core.config.item.max_tokens, core.config.user.max_events
        shapes = fixed_shape(tokens, longest[0]), fixed_shape(tokens, longest[1])
    return Budget(tokens, SHARE * left - tokens * max(item, event), item, event, shapes)


def find_sequence_budget(
    core: NextItemDecoder,
    batch: SequenceBatch,
    *,
    chunk_tokens: int | None,
    free: int,
    fixed: bool,
    autocast: Callable[[], AbstractContextManager[object]],
) -> Budget:
    """Return budget of steps on windows like `batch`; `find_budget` has the words and errors."""
    device = core.decoder.norm.weight.device
    weights = sum(p.numel() * p.element_size() for p in core.parameters())
    places, width = len(batch.items), core.config.width
    # of every place: its state, the state's gradient, both in order, four int64; the catalogue's
    # vectors once more with their gradient; three tiles of logits
    catalogue = core.decoder.item.num_embeddings
    tile = 3 * rows_per_tile(catalogue, device) * catalogue
    needed = 4 * weights + places * (4 * 4 * width + 4 * 8) + 2 * 4 * catalogue * width + 4 * tile
    left = free - needed
    if left <= 0:
        raise ValueError(
            f"{free / 2**20:.0f} MiB are free, {needed / 2**20:.0f} MiB are needed for the "
            "optimiser, the states of a batch and the catalogue; lower batch, or model sizes"
        )
    tokens = chunk_tokens or (CHUNK_CUDA if device.type == "cuda" else CHUNK_CPU)
    with autocast():
        event = _position_bytes(core.decoder, batch.lengths, min(tokens, CHUNK_CPU), core)
    while chunk_tokens is None and tokens > 256 and tokens * event > left / 4:
        tokens //= 2
    shape = fixed_shape(tokens, core.config.max_events) if fixed else None
    return Budget(
        tokens, SHARE * left - tokens * event, 0.0, event, (shape, shape) if shape else None
    )


def find_window_budget(
    core: PredictiveEncoder,
    batch: WindowBatch,
    *,
    chunk_tokens: int | Literal["auto"],
    free: int,
    fixed: bool,
    autocast: Callable[[], AbstractContextManager[object]],
) -> Budget:
    """Return budget of steps on windows like `batch`; `find_budget` has the words and errors."""
    device = core.norm.weight.device
    weights = sum(p.numel() * p.element_size() for p in core.parameters())
    events, width, candidates = len(batch.events), core.config.width, len(batch.candidates) + 1
    # of every event: its state, the target's vector, both gradients, five int64; of every item and
    # candidate: its vector and the gradient; three tiles of logits
    needed = 4 * weights + events * (4 * 4 * width + 5 * 8)
    needed += 2 * 4 * width * (len(batch.rows) + candidates)
    needed += 4 * 3 * rows_per_tile(candidates, device) * candidates
    left = free - needed
    if left <= 0:
        raise ValueError(
            f"{free / 2**20:.0f} MiB are free, {needed / 2**20:.0f} MiB are needed for the "
            "optimiser, states and items of a batch; lower windows.batch or predictive.width"
        )
    tokens = CHUNK_CUDA if device.type == "cuda" else CHUNK_CPU
    tokens = tokens if chunk_tokens == "auto" else chunk_tokens
    vectors = torch.zeros(1, width, device=device)
    with autocast():
        most = min(tokens, CHUNK_CPU)
        item = _position_bytes(core.text, batch.token_lengths, most, core)
        event = _position_bytes(
            lambda rows, layout: core.states(vectors[rows], layout), batch.event_lengths, most, core
        )
    while chunk_tokens == "auto" and tokens > 256 and tokens * max(item, event) > left / 4:
        tokens //= 2
    shapes = None
    if fixed:
        longest = core.text.config.max_tokens, core.config.max_events
        shapes = fixed_shape(tokens, longest[0]), fixed_shape(tokens, longest[1])
    return Budget(tokens, SHARE * left - tokens * max(item, event), item, event, shapes)


def activation_bytes(core: DualEncoder, batch: Batch, tokens: int) -> tuple[float, float]:
    """Return the bytes that a position of an item, and of a history, leaves for backward."""
    device = core.log_scale.device
    vectors = torch.zeros(1, core.config.item.width, device=device)

    def encode_history(events: Tensor, layout: Layout) -> Tensor:
        return core.users(vectors[events], layout)

    return (
        _position_bytes(core.items, batch.token_lengths, tokens, core),
        _position_bytes(encode_history, batch.event_lengths, tokens, core),
    )


def _position_bytes(
    encode: Callable[[Tensor, Layout], Tensor], lengths: np.ndarray, tokens: int, core: nn.Module
) -> float:
    """Return the bytes that a position leaves for backward in a chunk of the longest sequences."""
    device = next(core.parameters()).device
    start, stop = ranges(lengths[::-1], tokens)[0]
    longest = np.sort(lengths[::-1][start:stop])
    values = torch.zeros(int(longest.sum()), dtype=torch.int64, device=device)
    return _saved_bytes(encode, values, Layout.of(longest, device), core) / len(values)


def _saved_bytes(
    encode: Callable[[Tensor, Layout], Tensor], values: Tensor, layout: Layout, core: nn.Module
) -> int:
    """Return the bytes that autograd keeps of one call, each storage once, weights not counted."""
    weights = {storage_of(p): 0 for p in core.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[storage_of(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        encode(values, layout)
    return sum({**kept, **weights}.values())


def storage_of(tensor: Tensor) -> int:
    """Return what tells storages apart, those without memory (device meta) too."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
