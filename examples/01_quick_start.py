"""Quick start: logs of an invented world, an encoder, a table of vectors, and what they know.

python examples/01_quick_start.py
"""

# %% A world of users in three services. Their interests are known, and hidden from the encoder.
from pathlib import Path

import numpy as np

import clue
from clue.data.ingest.prepare_config import ServiceConfig
from clue.synthetic.world import SyntheticConfig, write_world

data = Path("data/quick_start")
world = write_world(SyntheticConfig(users=500, items_per_service=120, mean_events=12), data)
print(f"{world.events.num_rows:,} events, such as {world.events.slice(0, 1).to_pylist()[0]}")

# %% Logs -> corpus: files mapped into memory. The text of an item is made by a template.
corpus = clue.prepare(
    clue.PrepareConfig(
        name="quick_start",
        events=[str(data / "events.parquet")],
        items=[str(data / "items.parquet")],
        services={name: ServiceConfig(template="{title}") for name in ("shop", "news", "films")},
    ),
    progress=False,
)

# %% Corpus -> encoder. Vectors of one user in two services agree, those of two users do not.
clue.pretrain(
    clue.PretrainConfig(
        name="quick_start", corpus=corpus, steps=40, batch=64, validate_every=20, trackers=[]
    )
)

# %% Anybody's behaviour -> a vector.
encoder = clue.load("runs/quick_start")
vectors = encoder.encode(
    [{"shop": ["cast iron pan", "apron"]}, {"news": ["how to bake bread"]}, {"films": ["Alien"]}]
)
print("cosines:", encoder.similarity(vectors, vectors).round(2).tolist())

# %% All users of the corpus -> a table, a row for each user and service and one over all of them.
table = Path("embeddings/quick_start.parquet")
clue.embed(clue.EmbedConfig(checkpoint=Path("runs/quick_start"), corpus=corpus, out=table))
rows = [row for row in clue.read_embeddings(table).to_pylist() if row["service"] == "all"]

# %% Does a user's nearest neighbour have the same main interest? It was never told.
interest = {user["user_id"]: user["category"] for user in world.users.to_pylist()}
known = np.array([interest[row["user_id"]] for row in rows])
vectors = np.array([row["vector"] for row in rows])
likeness = vectors @ vectors.T
np.fill_diagonal(likeness, -1)
same = (known == known[likeness.argmax(1)]).mean()
chance = sum((known == name).mean() ** 2 for name in set(known))
print(f"nearest neighbour shares the main interest: {same:.0%}; by chance {chance:.0%}")
assert same > 2 * chance
