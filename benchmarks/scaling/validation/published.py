"""Published runs and coefficients, read from a folder that is never part of the project.

The folder is `shared/data/scaling`: its README names sources, commits and that they state no
licence; expected.json holds the published numbers.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.scaling.fit.selection import Sample

# Cherti et al. 2023, table of the frontiers: data set, its measure of success.
CLIP = {
    "imagenet1k": "acc1",
    "imagenet_robustness": "acc1",
    "mscoco_captions": "image_retrieval_recall@5",
    "flickr30k": "image_retrieval_recall@5",
}
OUTLIERS = 5  # runs of the largest loss, which Besiroglu et al. 2024 (arXiv 2404.10102) leave out


def expected(folder: Path) -> dict[str, Any]:
    """Return the published numbers; FileNotFoundError without the folder."""
    file = folder / "expected.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"no {file}; set CLUE_DATA to the folder that holds scaling/, or data=FOLDER"
        )
    return json.loads(file.read_text(encoding="utf-8"))


def chinchilla(folder: Path) -> Sample:
    """Return 240 runs read off Hoffmann et al.'s figure: factors N and D."""
    table = pd.read_csv(folder / "epoch_chinchilla" / "svg_extracted_data.csv")
    size, flops, loss = (
        np.array(table[name], np.float64) for name in ("Model Size", "Training FLOP", "loss")
    )
    keep = np.sort(np.argsort(loss, kind="stable")[: len(loss) - OUTLIERS])
    x = np.stack([size, flops / (6 * size)], 1)[keep]
    return Sample(("N", "D"), x, loss[keep], np.arange(len(keep)), flops[keep])


def openclip(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return GMACs of training and errors of the 29 models by data set; OpenAI's own left out."""
    table = pd.read_csv(folder / "openclip_scaling" / "zeroshot_results.csv")
    table = table[table["upstream_dataset"] != "CLIP-WIT"]
    by_set = {name: table[table["downstream_dataset"] == name] for name in CLIP}
    return {
        name: (np.array(rows["gmacs_total"], float), 1 - np.array(rows[CLIP[name]], float))
        for name, rows in by_set.items()
    }


def misfitting(folder: Path, size: str) -> Sample:
    """Return the 261 runs of Li et al. 2025 (arXiv 2502.18969); `size` is N or N_no_emb."""
    table = pd.read_csv(folder / "misfitting_isoflop" / "scaling_results_last_ckpt_only.csv")
    size_of, read, loss, flops = (
        np.array(table[name], np.float64) for name in (size, "D", "loss", "C")
    )
    return Sample((size, "D"), np.stack([size_of, read], 1), loss, np.arange(len(loss)), flops)
