"""Serve and search: an index, the HTTP service, and three requests.

python examples/04_serve_and_search.py
"""

# %% A small encoder of an invented world, as in the quick start.
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np

import clue
from clue.data.ingest.prepare_config import ServiceConfig
from clue.synthetic.world import SyntheticConfig, write_world
from serving.build_index import BuildConfig, build

data = Path("data/serve")
write_world(SyntheticConfig(users=300, items_per_service=120), data)
corpus = clue.prepare(
    clue.PrepareConfig(
        name="serve",
        events=[str(data / "events.parquet")],
        items=[str(data / "items.parquet")],
        services={name: ServiceConfig(template="{title}") for name in ("shop", "news", "films")},
    ),
    progress=False,
)
clue.pretrain(
    clue.PretrainConfig(
        name="serve", corpus=corpus, steps=20, batch=64, validate_every=20, trackers=[]
    )
)

# %% The index holds the vectors of all items and users. It is replaced whole, while it is served.
run, index = Path("runs/serve"), Path("indexes/serve")
build(BuildConfig(checkpoint=run, corpus=corpus, out=index, overwrite=True))

# %% The service, as `clue serve checkpoint=runs/serve index=indexes/serve` starts it.
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
server = subprocess.Popen(
    [sys.executable, "-m", "serving", f"checkpoint={run}", f"index={index}", f"port={port}"]
)


def ask(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the service's answer to a request."""
    sent = json.dumps(body).encode() if body is not None else None
    url = f"http://127.0.0.1:{port}{path}"
    with urlopen(Request(url, sent, {"content-type": "application/json"})) as answer:
        return json.loads(answer.read())


try:
    for _ in range(300):  # until it is ready
        try:
            ask("/readyz")
            break
        except URLError:
            time.sleep(0.1)

    # %% A vector, the items nearest to a user, the users nearest to one of them.
    events = [{"service": "shop", "text": "cast iron pan"}, {"service": "shop", "text": "apron"}]
    embedded = ask("/v1/users/embed", {"users": [{"events": events}]})
    items = ask("/v1/items/search", {"events": events, "service": "films", "k": 5})
    users = ask("/v1/users/similar", {"user_id": "u0000001", "k": 5})
    print(json.dumps(items, indent=1)[:400])
    print(json.dumps(users, indent=1)[:400])
finally:
    server.terminate()
    server.wait()

# %% HTTP and Python read the same behaviour alike, and the answers hold what was asked for.
python = clue.load(run).encode({"shop": ["cast iron pan", "apron"]})
np.testing.assert_allclose(embedded["data"][0]["vector"], python, atol=1e-5)
assert all(hit["item_id"].startswith("films-") for hit in items["data"])
assert len(items["data"]) == len(users["data"]) == 5
print("HTTP and Python agree")
