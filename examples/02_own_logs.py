"""Logs of your own: other column names, one service, a bad row, and a user the log never saw.

python examples/02_own_logs.py
"""

# %% A shop's purchases as they may lie about: a CSV of its own columns, a table of products.
import csv
import json
import random
from dataclasses import replace
from pathlib import Path

import clue
from clue.data.ingest.prepare_config import ServiceConfig
from clue.data.ingest.staging import Columns
from clue.data.views import ViewsConfig

random.seed(0)
tastes = {
    "kitchen": "cast iron pan,bread knife,rolling pin,apron,oven glove,pepper mill,cake tin,whisk",
    "garden": "spade,rake,watering can,tulip bulbs,hedge shears,compost,seed tray,hose",
    "desk": "notebook,fountain pen,ink,stapler,ruler,paper clips,desk lamp,envelopes",
}
products = [(name, taste) for taste, names in tastes.items() for name in names.split(",")]
folder = Path("data/own_logs")
folder.mkdir(parents=True, exist_ok=True)
with (folder / "products.csv").open("w", newline="") as file:
    lines = csv.writer(file)
    lines.writerow(["product", "title", "maker"])
    lines.writerows([n, name, f"maker {n % 5}"] for n, (name, _) in enumerate(products))
with (folder / "purchases.csv").open("w", newline="") as file:
    lines = csv.writer(file)
    lines.writerow(["customer", "product", "bought_at"])
    for customer in range(600):
        taste = list(tastes)[customer % 3]
        liked = [n for n, (_, of) in enumerate(products) if of == taste]
        for day in sorted(random.sample(range(1, 366), 8)):
            product = random.choice(liked) if random.random() < 0.9 else random.randrange(24)
            lines.writerow([f"c{customer}", product, f"2024-01-01 00:{day // 60:02}:{day % 60:02}"])
    lines.writerow(["", 3, "2024-01-01 00:00:00"])  # nobody bought this

# %% What the columns are called stands in the config; a YAML for `clue prepare` has the same keys.
config = clue.PrepareConfig(
    name="own_logs",
    events=[str(folder / "purchases.csv")],
    items=[str(folder / "products.csv")],
    columns=Columns(user_id="customer", item_id="product", timestamp="bought_at"),
    service="shop",
    services={"shop": ServiceConfig(template="{title} by {maker}")},
)

# %% A bad row is refused with file, row and value ...
try:
    clue.prepare(config, progress=False)
    raise AssertionError("the bad row was not seen")
except ValueError as error:
    print(f"refused: {error}")

# %% ... or left out and counted.
corpus = clue.prepare(replace(config, on_bad_row="drop"), progress=False)
dropped = json.loads((corpus / "manifest.json").read_text())["dropped_rows"]
print("left out:", dropped)
assert sum(dropped.values()) == 1

# %% One service has no second view: pairs are of past and future, and of two slices of a history.
clue.pretrain(
    clue.PretrainConfig(
        name="own_logs",
        corpus=corpus,
        steps=60,
        batch=128,
        validate_every=30,
        trackers=[],
        views=ViewsConfig(cross_service=0.0, past_future=0.5, slices=0.5),
    )
)

# %% Somebody new, by texts that the log never had in this order, and what lies nearest to them.
encoder = clue.load("runs/own_logs")
user = encoder.encode({"shop": ["spade by maker 3", "compost by maker 1", "rake by maker 4"]})
items = encoder.encode_items([f"{name} by maker {n % 5}" for n, (name, _) in enumerate(products)])
nearest = encoder.similarity(user[None], items)[0].argsort()[::-1][:5]
print("nearest:", [products[n][0] for n in nearest])
assert sum(products[n][1] == "garden" for n in nearest) >= 4
