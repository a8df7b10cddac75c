"""What a model reads of the items, made once for all processes: each makes a part, all map it.

.users.shards/items/NAME.npy     an array, each process's rows written by itself
.users.shards/items/made.json    their names, after that: a run that goes on reads them
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from clue.atomic import sync, write_text
from clue.data.corpus import Corpus
from clue.inference.encoder import Encoder
from clue.train.distributed import broadcast

FOLDER = "items"


def shared_inputs(encoder: Encoder, corpus: Corpus, work: Path, accelerator: Accelerator) -> Any:
    """Return `encoder.item_inputs(corpus)` over files in `work` that all processes map.

    All must call it. A machine holds one copy of the arrays, whatever its number of processes.
    """
    folder = work / FOLDER
    made = folder / "made.json"
    if not broadcast(made.is_file()):
        _make(encoder, corpus, folder, accelerator)
        if accelerator.is_main_process:
            write_text(made, json.dumps(sorted(file.stem for file in folder.glob("*.npy"))))
        accelerator.wait_for_everyone()
    names: list[str] = json.loads(made.read_text(encoding="utf-8"))
    # copied on write, though nobody writes: torch warns of memory that it may not write to
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in names}
    return encoder.item_inputs(corpus, arrays)


def _make(encoder: Encoder, corpus: Corpus, folder: Path, accelerator: Accelerator) -> None:
    bounds = np.linspace(0, corpus.num_items, accelerator.num_processes + 1).astype(int)
    rank = accelerator.process_index
    own = range(int(bounds[rank]), int(bounds[rank + 1]))
    arrays = encoder.item_arrays(corpus, own)
    if accelerator.is_main_process:
        folder.mkdir(exist_ok=True)
        for name, array in arrays.items():
            shape = (corpus.num_items, *array.shape[1:])
            file = folder / f"{name}.npy"
            np.lib.format.open_memmap(file, "w+", dtype=array.dtype, shape=shape).flush()
    accelerator.wait_for_everyone()
    for name, array in arrays.items():
        file = folder / f"{name}.npy"
        whole = np.lib.format.open_memmap(file, "r+")
        whole[own.start : own.stop] = array
        whole.flush()
        sync(file)
    accelerator.wait_for_everyone()
