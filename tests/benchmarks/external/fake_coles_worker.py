# pyright: standard
"""Stands for the arm of CoLES: trains nothing, and its vectors can be worked out by hand.

    python fake_coles_worker.py train|embed SPEC

A vector is (events, last item, last service, last place). Every call adds a line to WORK/calls.
"""

import json
import sys
from pathlib import Path

import numpy as np

mode, spec = sys.argv[1], json.loads(sys.argv[2])
work = Path(spec["work"])
with (work / "calls").open("a", encoding="utf-8") as file:
    file.write(mode + "\n")
if mode == "train":
    sys.stdout.write("half way\n")
    (work / "model.pt").write_text("a model")
else:
    with np.load(spec["histories"]) as log:
        last, size = log["offsets"][1:] - 1, np.diff(log["offsets"])
        columns = [size, *(log[name][last] for name in ("item", "service", "event_time"))]
    np.save(spec["out"], np.where(size > 0, columns, 0).T.astype(np.float32))
