"""The network probe: the fixed one that the RecSys Challenge 2025 reads every vector with.

It chooses nothing, and so never sees a valid user. There it is 2,048 wide, which takes two
processor cores minutes a vector; WIDTH here, unless a suite names another: "mlp-2048".
"""

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

WIDTH = 256


class Mlp(nn.Module):
    """The fixed network that RecSys Challenge 2025 (Synerise) reads every vector with.

    A projection to `width`, three inverted bottlenecks of twice that, each behind a
    LayerNorm and with a residual, and a linear output.
    """

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        """Build it for `inputs` F features and `outputs` O."""
        super().__init__()
        self.project = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.GELU(),
                nn.Linear(2 * width, width),
            )
            for _ in range(3)
        )
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, O) of features (B, F)."""
        x = self.project(x)
        for block in self.blocks:
            x = x + block(x)
        return self.output(x)


def mlp(
    train: tuple[np.ndarray, np.ndarray],
    test: np.ndarray,
    target: str,
    *,
    width: int = WIDTH,
    epochs: int = 3,
    seed: int = 0,
) -> np.ndarray:
    """Return probabilities (n, C) of classes, (n, L) of labels, or numbers (n,) of the test rows.

    `target` is "class", "labels" or "number". The weights are those after the last epoch, of AdamW
    at 1e-3 on batches of 128, as published.
    """
    scaler = StandardScaler().fit(train[0])
    x, x_test = (
        torch.from_numpy(np.asarray(scaler.transform(each), np.float32))
        for each in (train[0], test)
    )
    y, outputs, mean, spread = _targets(train[1], target)
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Mlp(x.shape[1], outputs, width).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(128):
                loss = _loss(model(x[rows].to(device)), y[rows].to(device), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    with torch.no_grad():
        predicted = torch.cat([model(rows.to(device)).cpu() for rows in x_test.split(4096)])
    if target == "number":
        return predicted[:, 0].numpy() * spread + mean
    return (predicted.softmax(1) if target == "class" else predicted.sigmoid()).numpy()


def _targets(y: np.ndarray, target: str) -> tuple[torch.Tensor, int, float, float]:
    """Return the target of the loss, the width of the output, and mean and spread of a number."""
    if target == "class":
        return torch.from_numpy(y.astype(np.int64)), int(y.max()) + 1, 0.0, 1.0
    if target == "labels":
        return torch.from_numpy(y.astype(np.float32)), y.shape[1], 0.0, 1.0
    mean, spread = float(y.mean()), max(float(y.std()), 1e-12)
    return torch.from_numpy(((y - mean) / spread).astype(np.float32))[:, None], 1, mean, spread


def _loss(outputs: torch.Tensor, y: torch.Tensor, target: str) -> torch.Tensor:
    if target == "class":
        return functional.cross_entropy(outputs, y)
    if target == "labels":
        return functional.binary_cross_entropy_with_logits(outputs, y)
    return functional.mse_loss(outputs, y)
