"""What a run has learnt as plain tensors by name: the same for one process, DDP and FSDP2.

Gathered by all processes together and kept by the main one alone; a run started with N processes
therefore goes on with M. Optimiser state goes by the parameter's name and not by its index: how
parameters are shared out among optimisers and groups may change, their names do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer

from clue.train.distributed import unsharded

# what one kind of optimiser keeps and another would carry along unread, or misread
OWNERS: dict[str, tuple[type[Optimizer], ...]] = {
    "exp_avg": (torch.optim.AdamW,),
    "exp_avg_sq": (torch.optim.AdamW,),
    "momentum_buffer": (torch.optim.Muon, torch.optim.SGD),
}


@dataclass(frozen=True)
class StateDict:
    """Weights and optimiser state on the CPU; a processor's tensors are shared, not copied.

    `weights` is what is evaluated and served. Where that is an average of the weights in training,
    `trained` holds those themselves. `optimizer` has every tensor and number that the optimisers
    keep for a parameter, as "PARAMETER/NAME".
    """

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor | float]
    trained: dict[str, Tensor] | None = None


def gather(
    model: nn.Module, optimizers: Sequence[Optimizer], average: Mapping[str, Tensor]
) -> StateDict | None:
    """Return the state of the unwrapped `model` and its optimisers on the main process, else None.

    `average` are the averaged weights by name, empty where there are none. Every process must call
    it. What it gives must be written before the next step: on a processor the tensors are the ones
    that the step changes.
    """
    names = {id(weight): name for name, weight in model.named_parameters()}
    slots = {
        f"{names[id(weight)]}/{slot}": value
        for optimizer in optimizers
        for weight, kept in optimizer.state.items()
        for slot, value in kept.items()
    }
    trained = whole(model.state_dict())
    averaged = whole(average)
    tensors = whole({name: value for name, value in slots.items() if isinstance(value, Tensor)})
    if dist.is_initialized() and dist.get_rank() > 0:
        return None
    optimizer = {**slots, **tensors}
    if not average:
        return StateDict(trained, optimizer)
    return StateDict({**trained, **averaged}, optimizer, trained)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each tensor in full on the CPU, on the main process; empty on the others.

    Every process must call it. One tensor at a time is whole on the device.
    """
    main = not dist.is_initialized() or dist.get_rank() == 0
    gathered: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full = unsharded(tensor)
        if main:
            gathered[name] = full.detach().cpu().contiguous()
    return gathered


def restore(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    weights: Mapping[str, Tensor],
    saved: Mapping[str, Tensor | float],
) -> None:
    """Put `weights` and StateDict.optimizer into the unwrapped `model` and the optimisers over it.

    Sharded as its parameters are; every process must call it with the same values. `optimizers` are
    those that were gathered: of a run in phases, the ones of the checkpoint's phase. Raises
    ValueError where optimiser state is of no parameter of the model, or of another kind of
    optimiser; nothing is changed then. Muon's momentum alone would pass for SGD's, but AdamW's
    moments always lie beside it.
    """
    names = {id(weight): name for name, weight in model.named_parameters()}
    by_name: dict[str, dict[str, Tensor | float]] = {}
    for key, value in saved.items():
        name, _, slot = key.rpartition("/")
        by_name.setdefault(name, {})[slot] = value
    unknown = by_name.keys() - set(names.values())
    if unknown:
        raise ValueError(
            f"the checkpoint has optimiser state of {sorted(unknown)[0]!r}, which the model lacks; "
            "resume with the model that wrote it, or choose another name="
        )
    held = {optimizer: _weights_of(optimizer) for optimizer in optimizers}
    for optimizer, order in held.items():
        _refuse_foreign(optimizer, {names[id(w)]: by_name.get(names[id(w)], {}) for w in order})
    now = model.state_dict()
    model.load_state_dict({name: sharded_like(now[name], value) for name, value in weights.items()})
    for optimizer, order in held.items():
        state = {
            index: {
                slot: sharded_like(weight, value)
                for slot, value in by_name[names[id(weight)]].items()
            }
            for index, weight in enumerate(order)
            if names[id(weight)] in by_name
        }
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def sharded_like(weight: Tensor, value: Any) -> Any:
    """Return a slot of `weight` sharded like it; counts of steps have no shape and stay whole."""
    if not dist.is_initialized() or not isinstance(value, Tensor) or not value.ndim:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(weight, DTensor):
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)


def _weights_of(optimizer: Optimizer) -> list[Tensor]:
    """Return the optimiser's parameters in the order of its state dict."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _refuse_foreign(optimizer: Optimizer, by_name: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError where a slot of a parameter is of another kind of optimiser."""
    for name, slots in by_name.items():
        for slot in slots:
            if not isinstance(optimizer, OWNERS.get(slot, Optimizer)):
                raise ValueError(
                    f"the checkpoint has {slot!r} of {name!r}, which {type(optimizer).__name__} "
                    "does not keep: another optimiser wrote it; resume with the optimizer.kind and "
                    "in the phase that wrote it, or choose another name="
                )
