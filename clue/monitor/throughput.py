"""How fast a run is and what it costs: counts summed from one logged step to the next."""

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from clue.train.flops import Peak, StepFlops, Work, peak_flops


@dataclass(frozen=True)
class StepTiming:
    """What a step took one process: `seconds`, in `waited` of which its batch was not there yet,
    and `processor`, those of all its threads.
    """

    seconds: float
    waited: float
    processor: float


@dataclass(frozen=True)
class Throughput:
    """The figures since the last reading, over all processes.

    `tokens_per_s` counts those of distinct items, `events_per_item` is events / distinct items
    (each process its own), `packing` the share of the computed positions, of tokens and of events,
    that hold something. `model_flops` is of one step, `seconds` the mean of a step. `data_wait` is
    the share of the time in which the process that waits most waited for batches.
    `processor_seconds` is a process's processor time in a step, the mean: what a busy machine does
    not change. `memory_bytes`
    is the peak of the largest process: what torch allocated on a GPU, resident memory elsewhere.
    `recompiles` counts the graphs that torch.compile made after the first step.
    """

    pairs_per_s: float
    tokens_per_s: float
    events_per_item: float
    packing: float
    model_flops: float
    mfu: float
    hfu: float
    data_wait: float
    seconds: float
    processor_seconds: float
    memory_bytes: int
    recompiles: int


class ThroughputMeter:
    """Adds up what one process does; `read` puts the processes together."""

    def __init__(self, flops: Callable[[Work], StepFlops], accelerator: Accelerator) -> None:
        """Look the peak of the processor up, or measure it: see `peak_flops`.

        `flops` says what the work of a step costs one process.
        """
        self.flops, self.accelerator = flops, accelerator
        self.precision = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
        self.peak: Peak = peak_flops(accelerator.device, self.precision)
        self.first_graphs: int | None = None
        self._clear()

    def _clear(self) -> None:
        self.steps = 0
        self.seconds = self.waited = self.processor = 0.0
        self.pairs = self.items = self.tokens = self.events = self.padding = 0
        self.model = self.hardware = 0.0

    def add(self, work: Work, spent: StepTiming) -> None:
        """Add a step."""
        flops = self.flops(work)
        self.steps += 1
        self.seconds += spent.seconds
        self.waited += spent.waited
        self.processor += spent.processor
        self.pairs += work.pairs
        self.items += work.items
        self.tokens += work.tokens
        self.events += work.events
        self.padding += work.token_padding + work.event_padding
        self.model += flops.model
        self.hardware += flops.hardware
        if self.first_graphs is None:
            self.first_graphs = compiled_graphs()

    def read(self) -> Throughput:
        """Return the figures and begins anew; every process must call it, it is one gather."""
        recompiled = compiled_graphs() - (self.first_graphs or 0)
        counts = [self.pairs, self.items, self.tokens, self.events, self.padding]
        costs = [self.model, self.hardware, self.processor, self.seconds]
        most = [self.waited, peak_memory(self.accelerator.device), recompiled]
        seen = torch.tensor([[*counts, *costs, *most]], dtype=torch.float64)
        if self.accelerator.num_processes > 1:
            gathered = self.accelerator.gather(seen.to(self.accelerator.device))
            assert isinstance(gathered, torch.Tensor)
            seen = gathered.cpu()
        summed = seen[:, : len(counts) + 3].sum(0).tolist()
        pairs, items, tokens, events, padding, model, hardware, processor = summed
        seconds, waited, memory, recompiles = seen[:, len(summed) :].amax(0).tolist()
        reach = seconds * self.peak.flops * len(seen)
        speed = Throughput(
            pairs_per_s=pairs / seconds,
            tokens_per_s=tokens / seconds,
            events_per_item=events / items,
            packing=(tokens + events) / (tokens + events + padding),
            model_flops=model / self.steps,
            mfu=model / reach,
            hfu=hardware / reach,
            data_wait=waited / seconds,
            seconds=seconds / self.steps,
            processor_seconds=processor / self.steps / len(seen),
            memory_bytes=int(memory),
            recompiles=int(recompiles),
        )
        self._clear()
        return speed


def peak_memory(device: torch.device) -> int:
    """Return this process's peak so far, in bytes: allocated on a GPU, resident elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB


def compiled_graphs() -> int:
    """Return how many graphs torch.compile has made; 0 where nobody asked it to."""
    dynamo = sys.modules.get("torch._dynamo.utils")  # importing it takes seconds
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo else 0
