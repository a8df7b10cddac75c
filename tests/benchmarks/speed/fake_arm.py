"""An arm that tells the figures of its spec, notes its turn in a file, and fails where told to."""

import json
import sys
from pathlib import Path

spec = json.loads(sys.argv[1])
if spec.get("fails"):
    sys.exit(spec["fails"])
turns = Path(spec["turns"])
seen = turns.read_text().split() if turns.exists() else []
turns.write_text(" ".join([*seen, spec["name"]]))
place = [one for one in seen if one == spec["name"]]
seconds = spec["seconds"][min(len(place), len(spec["seconds"]) - 1)]
found = {"loss": spec["loss"], "grad_norm": spec["grad_norm"], "seconds": seconds, "versions": {}}
Path(sys.argv[2]).write_text(json.dumps(found))
