"""What lies where in Milvus: an alias and collections of each index. Of the prefix `clue`:

    clue                                       an alias: the users of the generation to serve
    clue_generations                           a row for each generation that is whole: its record
    clue_000001_3fa2b1c4d5e6_users  …_items    the vectors of a generation

A user's key is their id's UTF-8 bytes in hexadecimal digits: in the order of ids, and nothing that
a client sends is ever part of an expression.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter
from pymilvus import DataType, MilvusClient

from serving.milvus.link import Link, done
from serving.vectors import KnownUser

FORMAT = 1
KEY_CHARACTERS = 1024
TEXT_BYTES = 65_535  # the most that a VARCHAR of Milvus holds
MOST_SEEN = 12_000  # item rows of a user that go into one, the newest
STRONG, BOUNDED = "Strong", "Bounded"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What Milvus says of a generation: by which model, how many, searched how and how well.

    What the store of this name wrote up to the write `store_seq` is in it. `recall` is recall@10
    against the exact search, by "users" and "items".
    """

    format: Literal[1]
    model_fingerprint: str
    corpus_fingerprint: str
    num_users: int
    num_items: int
    kind: str
    effort: int
    recall: Mapping[str, float]
    store: str = ""
    store_seq: int = 0


RECORD = TypeAdapter(Record)


def key_of(user_id: str) -> str:
    """Return the key of a user."""
    return user_id.encode().hex()


def id_of(key: str) -> str:
    """Return the user of a key; raises ValueError for what is none."""
    return bytes.fromhex(key).decode()


def user_row(
    user_id: str, vector: np.ndarray, state: np.ndarray, seen: np.ndarray, events: np.ndarray
) -> dict[str, Any]:
    """Return the row of a user, of the parts of a `KnownUser`."""
    newest = seen[max(0, len(seen) - MOST_SEEN) :].astype("<i4")
    return {
        "id": key_of(user_id),
        "vector": vector,
        "state": state.tolist(),
        "seen": base64.b64encode(newest.tobytes()).decode(),
        "events": events.tolist(),
        "services": np.flatnonzero(events).tolist(),
        "num_services": int(np.count_nonzero(events)),
        "num_events": int(events.sum()),
    }


USER_FIELDS = ["id", "vector", "state", "seen", "events"]


def known_user(row: Mapping[str, Any], width: int, ranking_width: int) -> KnownUser:
    """Return the user of a row; raises LookupError, TypeError or ValueError for what is none."""
    vector, state = np.array(row["vector"], np.float32), np.array(row["state"], np.float32)
    if vector.shape != (width,) or state.shape != (ranking_width,):
        raise ValueError(f"vectors of {vector.shape} and {state.shape}")
    if not (np.isfinite(vector).all() and np.isfinite(state).all()):
        raise ValueError("a vector is not finite")
    seen = np.frombuffer(base64.b64decode(row["seen"], validate=True), "<i4")
    events = np.array(row["events"], np.int64)
    return KnownUser(user_id=id_of(row["id"]), vector=vector, state=state, seen=seen, events=events)


class Tables:
    """The collections and the alias of one index."""

    def __init__(self, link: Link, prefix: str) -> None:
        """Ask nothing yet."""
        self.link, self.prefix = link, prefix
        self._records = f"{prefix}_generations"

    def users(self, name: str) -> str:
        """Return the collection of a generation's users."""
        return f"{self.prefix}_{name.replace('-', '_')}_users"

    def items(self, name: str) -> str:
        """Return the collection of a generation's items."""
        return f"{self.prefix}_{name.replace('-', '_')}_items"

    def current(self) -> str | None:
        """Return the generation that the alias names, None without an alias."""

        def read(answer: Any) -> str:
            match = re.fullmatch(r"(\d{6})_([0-9a-f]{12})_users", _tail(answer, self.prefix))
            if match is None:
                raise ValueError("the alias names no generation")
            return f"{match[1]}-{match[2]}"

        return self.link.call_if_there("describe_alias", self.prefix, read=read)

    def activate(self, name: str) -> None:
        """Have the alias name another generation: at one moment, for all who look."""
        method = "create_alias" if self.current() is None else "alter_alias"
        self.link.call(method, self.users(name), self.prefix, read=done)

    def names(self) -> list[str]:
        """Return the generations of which there are collections, whole or not."""
        pattern = re.compile(re.escape(self.prefix) + r"_(\d{6})_([0-9a-f]{12})_users")

        def read(answer: list[str]) -> list[str]:
            matches = [pattern.fullmatch(each) for each in answer]
            return sorted(f"{match[1]}-{match[2]}" for match in matches if match)

        return self.link.call("list_collections", read=read)

    def record(self, name: str) -> Record | None:
        """Return the record of a generation; None of one that is not there, or not whole."""

        def read(rows: Sequence[Mapping[str, Any]]) -> Record | None:
            return RECORD.validate_json(rows[0]["record"]) if len(rows) else None

        return self.link.call_if_there(
            *("get", self._records),
            ids=[name],
            output_fields=["record"],
            consistency_level=STRONG,
            read=read,
        )

    def note(self, name: str, record: Record) -> None:
        """Write the record of a generation."""
        text = json.dumps(asdict(record))
        row = {"name": name, "record": text, "vector": [1.0, 0.0]}  # Milvus wants a vector in each
        self.link.call("upsert", self._records, [row], read=done)

    def create_records(self) -> None:
        """Create the collection of records where there is none."""
        if self.link.call("has_collection", self._records, read=bool):
            return
        schema = _schema(("name", DataType.VARCHAR, {"max_length": 64}))
        schema.add_field("record", DataType.VARCHAR, max_length=TEXT_BYTES)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
        self._create(self._records, schema, {"vector": {"index_type": "FLAT"}})

    def create_users(self, name: str, width: int, indexed: Mapping[str, Any]) -> None:
        """Create the collection of a generation's users."""
        schema = _schema(("id", DataType.VARCHAR, {"max_length": KEY_CHARACTERS}))
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
        for field, kind in (("state", DataType.FLOAT), ("events", DataType.INT64)):
            schema.add_field(field, DataType.ARRAY, element_type=kind, max_capacity=4096)
        schema.add_field("services", DataType.ARRAY, element_type=DataType.INT64, max_capacity=4096)
        schema.add_field("num_services", DataType.INT64)
        schema.add_field("num_events", DataType.INT64)
        schema.add_field("seen", DataType.VARCHAR, max_length=TEXT_BYTES)
        self._create(self.users(name), schema, {"vector": indexed})

    def create_items(
        self, name: str, widths: Mapping[str, int], indexed: Mapping[str, Any]
    ) -> None:
        """Create the collection of a generation's items, with a vector of each of `widths`."""
        schema = _schema(("row", DataType.INT64, {}))
        schema.add_field("service", DataType.INT64)
        for field, width in widths.items():
            schema.add_field(field, DataType.FLOAT_VECTOR, dim=width)
        self._create(self.items(name), schema, dict.fromkeys(widths, indexed))

    def drop(self, name: str) -> None:
        """Remove a generation, its record first: half of one is none."""
        self.link.call("delete", self._records, ids=[name], read=done)
        for collection in (self.users(name), self.items(name)):
            self.link.call("drop_collection", collection, read=done)

    def forget(self, names: Sequence[str], user_ids: Sequence[str]) -> None:
        """Delete users from these generations."""
        for name in names if user_ids else ():
            keys = [key_of(user_id) for user_id in user_ids]
            self.link.call("delete", self.users(name), ids=keys, read=done)

    def _create(self, collection: str, schema: Any, indexes: Mapping[str, Any]) -> None:
        parameters = MilvusClient.prepare_index_params()
        for field, indexed in indexes.items():
            parameters.add_index(field, metric_type="IP", **indexed)
        self.link.call(
            *("create_collection", collection),
            schema=schema,
            index_params=parameters,
            consistency_level=BOUNDED,
            read=done,
        )


def _schema(key: tuple[str, Any, dict[str, int]]) -> Any:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    name, kind, more = key
    schema.add_field(name, kind, is_primary=True, **more)
    return schema


def _tail(answer: Mapping[str, str], prefix: str) -> str:
    return answer["collection_name"].removeprefix(f"{prefix}_")
