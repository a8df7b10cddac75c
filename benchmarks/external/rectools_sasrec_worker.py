# pyright: standard, reportMissingImports=false
"""The worker of rectools_sasrec.py: trains RecTools' SASRec in its own environment.

    python -m benchmarks.external.rectools_sasrec_worker SPEC

SPEC is JSON. After every epoch a line goes to WORK/curve.jsonl, and the vectors of the best epoch
so far lie in WORK/best.npz, so that a run that is killed loses nothing but the epoch it was in.
Imports nothing of this project.
"""

import json
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

SAME = 1e-6  # scores closer than this, relative above 1, are one: as in clue.evaluation.ranking
UNKNOWN = -1e9  # the score of an item that no training history holds: it has no vector
BEST = "NDCG@10 seen left out"  # no film is watched twice, so this is the measure to choose by


class Curve(Callback):
    """Measures every epoch on the validation events; the clock runs in training alone."""

    def __init__(self, spec: dict[str, Any], log: Any) -> None:
        """Take the log (a DataFrame): user, item, order, part; a user's events in their order."""
        self.work, self.minutes, self.length = Path(spec["work"]), spec["minutes"], spec["length"]
        self.batch, self.best = spec["batch"], -1.0
        # The model's id of each item; 0 is its padding and says that it does not know the item.
        self.ids = np.zeros(spec["items"], dtype=np.int64)
        self.seconds = self.processor = 0.0
        train, valid = log[log.part == 0], log[log.part == 1]
        self.histories = [train.groupby("user")["item"].agg(list)]
        self.histories.append(log[log.part < 2].groupby("user")["item"].agg(list))
        self.targets = torch.from_numpy(
            valid["item"].to_numpy()
        )  # the log is in the order of users

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Learn which items the model knows, and by which id."""
        prepared: Any = pl_module.data_preparator
        known = prepared.get_known_item_ids().astype(np.int64)
        self.ids[known] = prepared.get_known_items_sorted_internal_ids()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks."""
        self.began = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clocks, measure, write the line and the vectors of a new best epoch."""
        self.seconds += time.perf_counter() - self.began[0]
        self.processor += time.process_time() - self.began[1]
        model = pl_module.torch_model.eval()
        with torch.no_grad():
            items = model.item_model.get_all_embeddings()
            users = self._encoded(model, items, self.histories[0])
            line = {
                "epoch": trainer.current_epoch + 1,
                "seconds": self.seconds,
                "processor_seconds": self.processor,
                "train_loss": float(trainer.callback_metrics["train_loss"]),
                **self._measures(users @ items[self.ids].T),
            }
            if line[BEST] > self.best:
                self.best = line[BEST]
                tested = self._encoded(model, items, self.histories[1])
                self._keep(line["epoch"], users, tested, items[self.ids])
        model.train()
        with (self.work / "curve.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        trainer.should_stop = self.processor >= 60 * self.minutes * torch.get_num_threads()

    def _encoded(self, model: Any, items: torch.Tensor, histories: pd.Series) -> torch.Tensor:
        """Return the state after the last event of each history, unknown items left out."""
        sessions = np.zeros((len(histories), self.length), dtype=np.int64)
        for row, history in enumerate(histories):
            known = self.ids[history]
            known = known[known > 0][-self.length :]
            sessions[row, self.length - len(known) :] = known
        batches = torch.from_numpy(sessions).split(self.batch)
        states = [model.encode_sessions({"x": batch}, items)[:, -1] for batch in batches]
        return torch.cat(states)

    def _measures(self, scores: torch.Tensor) -> dict[str, float]:
        """Return measures of the validation events from scores (users, items), changed in place.

        The loss is the cross-entropy (nats) over the known items, of the targets among them.
        """
        unknown = torch.from_numpy(self.ids == 0)
        scores[:, unknown] = UNKNOWN
        known = ~unknown[self.targets]
        loss = torch.nn.functional.cross_entropy(scores[known], self.targets[known])
        figures = {"loss": float(loss)}
        kept = measures(scores, self.targets)
        own = scores.gather(1, self.targets[:, None])
        for row, history in enumerate(self.histories[0]):
            scores[row, history] = -torch.inf
        scores.scatter_(1, self.targets[:, None], own)
        for seen, named in (("kept", kept), ("left out", measures(scores, self.targets))):
            figures |= {f"{name} seen {seen}": value for name, value in named.items()}
        return figures

    def _keep(
        self, epoch: int, valid: torch.Tensor, test: torch.Tensor, items: torch.Tensor
    ) -> None:
        partial = self.work / "best.partial.npz"
        np.savez(
            partial,
            epoch=np.array(epoch),
            known=self.ids > 0,
            valid=valid.numpy(),
            test=test.numpy(),
            items=items.numpy(),
        )
        partial.replace(self.work / "best.npz")


def measures(scores: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """Return HR@10 and NDCG@10 of scores (users, items), expected over a random order of ties."""
    own = scores.gather(1, targets[:, None])
    width = SAME * own.abs().clamp(min=1)
    better = (scores > own + width).sum(1).numpy()
    equal = ((scores - own).abs() <= width).sum(1).numpy() - 1
    gain = np.zeros(scores.shape[1] + 1)
    gain[1:11] = (1 / np.log2(np.arange(1, 11) + 1))[: scores.shape[1]]
    total = np.cumsum(gain)
    hit = np.clip((10 - better) / (equal + 1), 0, 1)
    ndcg = (total[better + equal + 1] - total[better]) / (equal + 1)
    return {"HR@10": float(hit.mean()), "NDCG@10": float(ndcg.mean())}


def main(spec: dict[str, Any]) -> None:
    """Train on the events of part 0 and nothing else; the rest is as the module says."""
    torch.set_num_threads(spec["threads"])
    seed_everything(spec["seed"])
    work = Path(spec["work"])
    log: Any = pd.read_parquet(work / "log.parquet").sort_values(["user", "order"])
    train = log[log.part == 0]
    model = SASRecModel(
        n_blocks=spec["blocks"],
        n_heads=spec["heads"],
        n_factors=spec["width"],
        dropout_rate=spec["dropout"],
        session_max_len=spec["length"],
        loss="softmax",
        lr=spec["rate"],
        batch_size=spec["batch"],
        get_trainer_func=lambda: Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=spec["epochs"],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Curve(spec, log)],
        ),
    )
    columns = {
        Columns.User: train.user,
        Columns.Item: train["item"],
        Columns.Weight: 1.0,
        Columns.Datetime: pd.to_datetime(train.order, unit="s"),
    }
    packages = ("rectools", "pytorch_lightning", "torch", "numpy")
    versions = {package: version(package) for package in packages}
    (work / "versions.json").write_text(json.dumps(versions), encoding="utf-8")
    model.fit(Dataset.construct(pd.DataFrame(columns)))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(json.loads(sys.argv[1]))
