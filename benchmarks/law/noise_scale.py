"""The batch above which more examples in a step stop saving steps: the scale of gradient noise.

    B = tr(S) / |G|^2          G the gradient of the loss, S the covariance of that of one example

(McCandlish et al. 2018, arXiv 1812.06162, the simple noise scale.) Two batches of B halve the steps
of one at nearly the same data below it; far above it they cost twice the data. Estimated without
bias from BATCHES gradients at the end of a run; of a contrastive loss it is not defined, for each
batch is a task of its own.
"""

from pathlib import Path

import torch

from clue.data.corpus import Corpus
from clue.run import checkpoint
from clue.run.objectives.next_item import NextItemObjective
from clue.train.packing import Budget

BATCHES = 24
APART = 1_000_000  # steps, so that no batch was trained on as it is here


def noise_scale(run: Path) -> float | None:
    """Return the scale in windows, None where the gradient is lost in its noise."""
    source = checkpoint.find(run)
    corpus = Corpus.open(source.config.corpus)
    objective = NextItemObjective(source.config, corpus)
    model = objective.model().eval()  # no dropout: noise of the data alone
    model.load_state_dict(source.weights())
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    device = torch.device("cpu")
    mean = [torch.zeros_like(weight) for weight in weights]
    square = 0.0
    for number in range(BATCHES):
        batch = objective.draw(APART + number)
        model.zero_grad()
        objective.forward(model, batch, Budget(2**16), device).loss.backward()
        for total, weight in zip(mean, weights, strict=True):
            if weight.grad is not None:
                total += weight.grad / BATCHES
                square += float(weight.grad.square().sum()) / BATCHES
    return scale(square, sum(float(one.square().sum()) for one in mean), source.config.batch)


def scale(square: float, of_mean: float, batch: int) -> float | None:
    """Return B from the mean squared norm of BATCHES gradients and that of their mean."""
    noise = (square - of_mean) * BATCHES / (BATCHES - 1)  # the variance of one batch's gradient
    signal = of_mean - noise / BATCHES
    return batch * noise / signal if signal > 0 else None
