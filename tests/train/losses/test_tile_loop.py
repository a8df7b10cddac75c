"""The tile loop: tiles left out, memory, many processes, compiled tiles."""

# pyright: standard
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from clue.train.losses import tiles
from clue.train.losses.contrastive import HardNegatives, Identity, contrastive_loss
from tests.processes import spawn
from tests.train.losses.test_contrastive import (
    ALL,
    CASES,
    HARD,
    INFONCE,
    PAIRS,
    SIGMOID,
    WIDTH,
    Case,
    gradients,
    hard_negatives,
    identity,
    leaves,
    ours,
    unit,
    use_tiles,
)


@pytest.mark.parametrize("case", [Case(ALL, True), Case(SIGMOID, True)], ids=str)
def test_tiles_without_a_repeated_id_are_not_compared_and_lose_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiles(monkeypatch, 2)
    compared: list[bool] = []

    def watched(tile: tiles.Tile) -> tuple[torch.Tensor, torch.Tensor | None]:
        compared.append(bool(tile.kinds))
        return plain(tile)

    plain = tiles._logits  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(tiles, "_logits", watched)
    inputs = leaves()
    fast = ours(case, *inputs)
    fast_gradients = gradients(fast.loss, inputs)
    assert compared == [True] * 5 + [False] + [True] * 5 + [False]
    monkeypatch.setattr(tiles, "COMPILED", ("cpu",))  # such tiles have all masks
    monkeypatch.setattr(tiles, "compiled", lambda function: function)
    slow = ours(case, *inputs)
    for one, other in zip(vars(fast).values(), vars(slow).values(), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(fast_gradients, gradients(slow.loss, inputs), strict=True):
        assert torch.equal(one, other)
    assert compared[12:] == [True] * 12


class Sizes(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, tuple | list) else [made]:
            if isinstance(x, torch.Tensor):
                self.largest = max(self.largest, x.numel())
        return made


@pytest.mark.parametrize(
    "case", [Case(INFONCE, False), Case(ALL, True), Case(SIGMOID, True)], ids=str
)
def test_memory_is_linear_in_the_batch(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiles(monkeypatch, 16)
    saved: list[int] = []
    for pairs in (256, 1024):
        a, b, hard = (
            unit(n, s).float().requires_grad_() for n, s in ((pairs, 0), (pairs, 1), (64, 2))
        )
        log_q = torch.zeros(pairs + 64) if case.config.log_q else None
        content = torch.arange(pairs)
        ids = Identity(content // 2, content, content, None if log_q is None else log_q[:pairs])
        further = HardNegatives(hard, log_q=None if log_q is None else log_q[pairs:])
        sizes: dict[int, int] = {}

        def keep(x: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[x.data_ptr()] = x.numel()
            return x

        with Sizes() as made, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = contrastive_loss(
                *(a, b, torch.tensor([2.0], requires_grad=True), ids, case.config),
                bias=torch.tensor([-2.0]) if case.config.kind == "sigmoid" else None,
                hard=further if case.hard else None,
            ).loss
            loss.backward()
        assert a.grad is not None
        assert made.largest == 16 * (pairs + 64 * case.hard)  # one tile, in backward as well
        saved.append(sum(sizes.values()))
    assert saved[1] < 4.1 * saved[0]


# --- many processes


def one_side(rank: int, world: int, case: Case) -> dict[str, torch.Tensor]:
    """Return loss, report and gradients of one process, its rows going through a shared weight."""
    a, b, _, _, hard = (x.detach() for x in leaves())
    mine, further = (slice(rank * n // world, (rank + 1) * n // world) for n in (PAIRS, HARD))
    weight = torch.eye(WIDTH, dtype=torch.float64).mul(0.9).requires_grad_()
    log_scale = torch.tensor([1.6], dtype=torch.float64, requires_grad=True)
    bias = torch.tensor([-2.0], dtype=torch.float64, requires_grad=True)
    a, b, hard = (
        functional.normalize(x @ (weight + shift), dim=1)
        for x, shift in ((a[mine], 0), (b[mine], 0.1), (hard[further], 0.2))
    )
    log_q, sigmoid = case.config.log_q, case.config.kind == "sigmoid"
    seen = contrastive_loss(
        *(a, b, log_scale.exp(), identity(mine, log_q=log_q), case.config),
        bias=bias if sigmoid else None,
        hard=hard_negatives(hard, further, log_q=log_q) if case.hard else None,
    )
    names = {"weight": weight, "log_scale": log_scale, **({"bias": bias} if sigmoid else {})}
    found = dict(zip(names, torch.autograd.grad(seen.loss, list(names.values())), strict=True))
    for gradient in found.values() if world > 1 else ():
        dist.all_reduce(gradient)  # the average that DistributedDataParallel takes
        gradient /= world
    return {**found, **{name: x.detach() for name, x in vars(seen).items()}}


def _one_of(rank: int, world: int, folder: Path) -> None:
    tiles.rows_per_tile = lambda *_: 12 // world - 1  # divides nobody's rows
    found = [one_side(rank, world, case) for case in CASES]
    if rank == world - 1:
        torch.save(found, folder / f"{world}.pt")


def test_gradients_of_two_and_three_processes_equal_those_of_one(tmp_path: Path) -> None:
    alone = [one_side(0, 1, case) for case in CASES]
    checked = 0
    for world in (2, 3):
        spawn(_one_of, tmp_path, world=world)
        many = torch.load(tmp_path / f"{world}.pt", weights_only=True)
        for case, expected, found in zip(CASES, alone, many, strict=True):
            for name, value in expected.items():
                error = (found[name] - value).norm() / value.norm().clamp_min(1e-9)
                assert error < 1e-10, f"{world} processes, {case}, {name}: relative error {error}"
                checked += 1
    assert checked == 2 * (len(CASES) * 7 + 4)


# --- compiled tiles


def _compile_tiles(_: int, folder: Path) -> None:
    torch.set_num_threads(1)
    tiles.rows_per_tile = lambda *_: 5  # two full tiles, and two rows that run eagerly
    errors: list[float] = []
    torch._dynamo.config.error_on_recompile = True
    for case in (Case(ALL, True), Case(SIGMOID, False)):
        inputs = leaves()
        tiles.COMPILED = ()
        expected = ours(case, *inputs)
        slopes = gradients(expected.loss, inputs)
        tiles.COMPILED = ("cpu",)
        if case.config.kind == "sigmoid":  # traced alone: each C++ build costs seconds
            tiles.compiled = cache(partial(torch.compile, dynamic=False, backend="eager"))
        for _step in range(2):
            found = ours(case, *inputs)
            pairs = [*zip(vars(found).values(), vars(expected).values(), strict=True)]
            pairs += zip(gradients(found.loss, inputs), slopes, strict=True)
            errors += [(x - y).detach().abs().max().item() for x, y in pairs]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    (folder / "compiled.json").write_text(json.dumps([errors, graphs]))


def test_a_tile_is_compiled_once_for_all_tiles_and_steps(tmp_path: Path) -> None:
    # its own process: the tests' checks of shapes are no part of what is compiled
    arguments = (_compile_tiles, (tmp_path,))
    mp.start_processes(*arguments, start_method="forkserver")  # pyright: ignore[reportPrivateImportUsage]
    errors, graphs = json.loads((tmp_path / "compiled.json").read_text())
    assert len(errors) == 2 * 2 * 10
    assert max(errors) < 1e-12
    assert graphs == 4  # sums and slope of either loss
