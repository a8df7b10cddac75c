"""An arm that returns the figures of its spec, notes its turn in a file, and fails on demand."""

import json
import sys
from pathlib import Path

spec = json.loads(sys.argv[1])
if spec.get("fails"):
    sys.exit(spec["fails"])
turns = Path(spec["turns"])
earlier = turns.read_text().split() if turns.exists() else []
turns.write_text(" ".join([*earlier, spec["name"]]))
turn = earlier.count(spec["name"])
figures = {"seconds": spec["seconds"][min(turn, len(spec["seconds"]) - 1)]}
result = {"loss": spec["loss"], "grad_norm": spec["grad_norm"], "figures": figures, "versions": {}}
Path(sys.argv[2]).write_text(json.dumps(result))
