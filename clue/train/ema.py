"""The exponential moving average of the weights: what is evaluated and served, where it is on."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from clue.train.state_dict import sharded_like


class Average:
    """The average of a model's weights over its steps, beside the model, on the same device.

    After step t (from 0):  average <- d average + (1 - d) weights,  d = min(decay, (1+t) / (10+t)).
    The second term is TensorFlow's warm-up of the decay: with .999 alone, the random weights of the
    beginning are still 37 % of the average after 1,000 steps; with it, .05 % after 5.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start at the weights as they are; `decay` 0 keeps no average and costs nothing.

        `weights` holds the average by parameter name, empty without one.
        """
        self.decay = decay
        self.weights: dict[str, Tensor] = {}
        if decay:
            self.weights = {name: w.detach().clone() for name, w in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after step `step` (from 0), which a resumed run knows."""
        if self.weights:
            decay = min(self.decay, (1 + step) / (10 + step))
            now = [w.detach() for w in model.parameters()]
            get_ema_multi_avg_fn(decay)(list(self.weights.values()), now, step)

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Go on from a saved average."""
        for name, average in self.weights.items():
            average.copy_(sharded_like(average, weights[name]))
