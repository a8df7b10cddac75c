"""A budget in FLOPs, hours or money, and how many FLOPs a device makes of an hour.

Of a GPU docs/sizing.md takes one rate of training, an H100's; others are to it as their peaks are.
"""

from dataclasses import dataclass

from benchmarks.report.sizing import HOUR, SizingConfig
from clue.train import flops

HERE = "here"
REFERENCE = "h100"  # whose rate is `gpu_flops` of benchmarks/report/sizing.py
PEAKS = {name.lower().replace(" ", "-"): peak for name, peak in flops.PEAKS.items()}


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """One of `flops`, `hours` and `money`; hours are those of all `devices` together at once.

    `money` buys hours at `price` each, of one device. `device` is `here`, whose rate the law's own
    runs measured, or a GPU (l4 l40s a100 h100 h100-nvl h100-pcie h200 b200), whose rate is taken,
    not measured; `rate` in FLOP/s for one device replaces either.
    """

    flops: float = 0.0
    hours: float = 0.0
    money: float = 0.0
    price: float = 0.0
    device: str = HERE
    devices: int = 1
    rate: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no budget, and a device of which nothing is known."""
        given = [name for name in ("flops", "hours", "money") if getattr(self, name)]
        if len(given) != 1 or getattr(self, given[0]) < 0:
            raise ValueError(
                f"flops {self.flops:g}, hours {self.hours:g}, money {self.money:g}: give one of "
                "them above 0, such as flops=1e15, hours=8 device=h100, or money=100 price=2.5"
            )
        if self.money and self.price <= 0:
            raise ValueError(f"money={self.money:g} needs the price of an hour: price=2.5")
        if self.device not in (HERE, *PEAKS) and not self.rate:
            raise ValueError(
                f"device {self.device!r} is not known; there are {HERE}, {', '.join(PEAKS)}, or "
                "give its FLOP/s of training: rate=1e14"
            )
        if self.devices < 1 or self.rate < 0 or self.price < 0:
            raise ValueError(
                f"devices {self.devices}, rate {self.rate:g}, price {self.price:g}: none may be "
                "negative, and devices are 1 or more"
            )


def device_rate(device: str, measured: float) -> float:
    """Return the FLOP/s at which a device is taken to train; `measured` is that of this machine."""
    if device == HERE:
        return measured
    return SizingConfig.gpu_flops * PEAKS[device] / PEAKS[REFERENCE]


def flops_of(budget: BudgetConfig, measured: float) -> tuple[float, str]:
    """Return the FLOPs of a budget, and in words how they were counted."""
    if budget.flops:
        return budget.flops, f"{budget.flops:.3g} FLOPs"
    rate = budget.rate or device_rate(budget.device, measured)
    hours = budget.hours * budget.devices if budget.hours else budget.money / budget.price
    source = "given" if budget.rate else "measured by the law's runs"
    if not budget.rate and budget.device != HERE:
        source = "taken, not measured: small models reach less"
    words = f"{hours:.3g} hours of {budget.device} at {rate:.3g} FLOP/s ({source})"
    if budget.money:
        words = f"{budget.money:g} at {budget.price:g} an hour is {words}"
    return hours * HOUR * rate, words
