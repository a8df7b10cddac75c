"""Alarms of a training run: what is wrong, and what to do about it. Numbers in, messages out.

An alarm is raised once and stays up until its condition clears; then it may be raised again.
"""

import statistics
from collections import deque
from dataclasses import dataclass, field

from clue.nn.dual_encoder import MAX_SCALE

PATIENCE = 3  # logged steps in a row that make a condition, not a moment
SPIKE_WINDOW = 100  # steps that say what the loss usually is
SPIKE_LEAST = 30  # of them, before anything is called unusual
# Deviations, in robust standard deviations (below). 3.5 is the usual bound for outliers (Iglewicz &
# Hoaglin 1993), one in 2,000 for a normal loss; 6 keeps a run of a million steps quiet.
SPIKE_DEVIATIONS = 6.0
SPIKE_LEAST_RISE = 0.05  # of the usual loss: a loss that stands still deviates by rounding
DATA_BOUND = 0.2  # share of the time spent waiting for batches


@dataclass(frozen=True)
class Alert:
    """A condition that came up, by `name`, and what to do."""

    name: str
    message: str


@dataclass
class Alarms:
    """Watches the figures of one run; `raised` holds the alarms that are up."""

    raised: dict[str, Alert] = field(default_factory=dict)
    _losses: deque[float] = field(default_factory=lambda: deque(maxlen=SPIKE_WINDOW))
    _counts: dict[str, int] = field(default_factory=dict)

    def see_loss(self, step: int, loss: float) -> list[Alert]:
        """Take the loss of every step and return the alarm that it raises, if any.

        A spike lies above the median of the last 100 losses by more than 6 standard deviations,
        estimated as 1.4826 x the median absolute deviation (Rousseeuw & Croux 1993): neither a
        spike before nor the slope of a falling loss, which widens a plain deviation, hides one.
        """
        spiked = False
        if len(self._losses) >= SPIKE_LEAST:
            usual = statistics.median(self._losses)
            spread = 1.4826 * statistics.median(abs(x - usual) for x in self._losses)
            rise = max(SPIKE_DEVIATIONS * spread, SPIKE_LEAST_RISE * abs(usual))
            spiked = loss > usual + rise
            text = (
                f"loss {loss:.4g} at step {step}, where {usual:.4g} is usual. Training often comes "
                "back by itself; if it happens again, lower optimizer.lr or optimizer.clip, or "
                "lengthen optimizer.warmup_steps"
            )
        else:
            text = ""
        self._losses.append(loss)
        return self._settle("loss_spike", spiked, text)

    def see_logged(self, scale: float | None, data_wait: float) -> list[Alert]:
        """Take 1/temperature and the share of time spent waiting for data, at each logged step.

        A model without a temperature has `scale` None.
        """
        return [
            *self._settle(
                "temperature_low",
                self._lasts("temperature_low", scale is not None and scale <= 1.0001),
                "1/temperature has stood at its lower bound 1 for "
                f"{PATIENCE} logged steps: views of one user are not told apart from others', or "
                "the learning rate drove it there. Lower optimizer.lr; check that the views of a "
                "user have something in common",
            ),
            *self._settle(
                "temperature_high",
                self._lasts("temperature_high", scale is not None and scale >= MAX_SCALE * 0.9999),
                f"1/temperature has stood at its upper bound {MAX_SCALE:g} for {PATIENCE} logged "
                "steps: the training pairs are told apart almost surely. If held-out entropy "
                "rises they are being memorised: raise views.event_dropout or model.user.dropout, "
                "or stop at the best checkpoint",
            ),
            *self._settle(
                "data_bound",
                self._lasts("data_bound", data_wait > DATA_BOUND),
                f"{data_wait:.0%} of the last logged steps' time went into waiting for batches, "
                "which one thread of each process draws beside the step. Put the corpus on a local "
                "disk with memory to cache it, leave a processor core free for that thread (lower "
                "OMP_NUM_THREADS), or train with more processes, each of which draws its share",
            ),
        ]

    def _lasts(self, name: str, here: bool) -> bool:
        self._counts[name] = self._counts.get(name, 0) + 1 if here else 0
        return self._counts[name] >= PATIENCE

    def _settle(self, name: str, up: bool, message: str) -> list[Alert]:
        """Return alarm where it was not up before; takes it down where its condition is gone."""
        if not up:
            self.raised.pop(name, None)
            return []
        if name in self.raised:
            return []
        self.raised[name] = Alert(name, message)
        return [self.raised[name]]
