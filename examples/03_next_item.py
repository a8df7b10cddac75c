"""Next item: a decoder over item ids, for logs without texts.

python examples/03_next_item.py
"""

# %% A log of ids alone. Its law: a user goes round a ring of 40 films, one after another.
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import clue
from clue.nn.decoder import DecoderConfig

random.seed(0)
FILMS = 40
events = []
for user in range(400):
    film = random.randrange(FILMS)
    for time in range(12):
        events.append({"user_id": f"u{user}", "item_id": f"film {film}", "timestamp": time})
        film = (film + 1) % FILMS if random.random() < 0.9 else random.randrange(FILMS)
log = Path("data/next_item/events.parquet")
log.parent.mkdir(parents=True, exist_ok=True)
pq.write_table(pa.Table.from_pylist(events), log)

# %% The same three steps as with texts; `objective` says which model it is.
corpus = clue.prepare(
    clue.PrepareConfig(name="ring", events=[str(log)], service="films"), progress=False
)
clue.pretrain(
    clue.PretrainConfig(
        name="ring",
        corpus=corpus,
        objective="next_item",
        decoder=DecoderConfig(layers=1, width=32, heads=2, max_events=16, dropout=[0.0]),
        steps=100,
        batch=64,
        validate_every=50,
        best_by="ndcg",
        trackers=[],
    )
)

# %% The model's last state is the user's vector; its cosine with an item ranks what comes next.
encoder = clue.load("runs/ring")
users = [{"films": [f"film {(start + n) % FILMS}" for n in range(4)]} for start in range(FILMS)]
ids = [f"film {n}" for n in range(FILMS)]
likeness = encoder.similarity(encoder.encode(users), encoder.encode_items(ids, service="films"))
best = likeness.argmax(1)
right = sum(int(best[start]) == (start + 4) % FILMS for start in range(FILMS))
print(f"after four films in a row the fifth comes first for {right} of {FILMS} users")
assert right >= 0.8 * FILMS
