"""A generation and the model that made it, as what answers requests."""

from collections.abc import Callable
from pathlib import Path

from clue.inference import encoder as inference
from clue.inference.encoder import Encoder
from clue.inference.source import find_source
from serving.catalogue import Catalogue
from serving.delta import Delta
from serving.engine import Engine
from serving.generation import Manifest, manifest_of
from serving.generations import Generations, generations_of
from serving.precision import chosen_precision
from serving.settings import Settings
from serving.store import Store


class NotServable(ValueError):
    """A generation that this service cannot serve; the message says why, and names no path."""

    def __init__(self, detail: str, fingerprints: dict[str, str] | None = None) -> None:
        """`fingerprints` are those that do not fit."""
        super().__init__(detail)
        self.fingerprints = fingerprints


def load_engine(
    settings: Settings,
    name: str,
    store: Store | None,
    encoder: Encoder | None = None,
    count_items: Callable[[int, int], None] | None = None,
    generations: Generations | None = None,
) -> Engine:
    """Return what answers by the generation `name`, with all that the store has written since.

    `encoder` is used where it is the generation's model; another one keeps items of its own, whose
    hits and misses are told to `count_items`. Raises NotServable for a model that is
    not here and for users of another store, OSError and ValueError for what cannot be read.
    """
    manifest = manifest_of(settings.index, name)
    index = (generations or generations_of(settings)).open(name)
    if index.store and (store is None or index.store != store.name):
        raise NotServable(
            "the index holds users of another store: serve it with that one (CLUE_STORE), or build "
            "it again with clue index overwrite=true"
        )
    is_new = encoder is None or encoder.fingerprint != manifest.model_fingerprint
    if encoder is None or is_new:
        encoder = encoder_of(settings, manifest)
    _check_columns(encoder, index.catalogue)
    delta = Delta(encoder, index, after=index.store_seq)
    precision = chosen_precision(settings.precision, encoder, index)
    if is_new and settings.item_cache_bytes:  # after both precisions have read all texts
        encoder.keep_items(settings.item_cache_bytes, count_items)
    engine = Engine(
        encoder, index, threads=settings.torch_threads, delta=delta, precision=precision
    )
    if store is not None:
        catch_up(store, engine)
    return engine


def _check_columns(encoder: Encoder, catalogue: Catalogue) -> None:
    """Raise NotServable where the index holds other columns than the model compares.

    Weights alone make a fingerprint: another version of this code may compare other columns.
    """
    similarity, ranking = encoder.similarity_columns, encoder.ranking_columns
    widths = [
        ("users", catalogue.width, similarity.stop - similarity.start),
        ("items", catalogue.ranking_width, ranking.stop - ranking.start),
    ]
    for name, (start, stop) in catalogue.item_blocks.items():
        columns = encoder.blocks.get(name, slice(0, 0))
        widths.append((f"items' {name}", stop - start, columns.stop - columns.start))
    for what, has, wanted in widths:
        if has != wanted:
            raise NotServable(
                f"the index has {has} numbers for its {what} where the model compares {wanted}; "
                "build it again with this version"
            )


def encoder_of(settings: Settings, manifest: Manifest) -> Encoder:
    """Return the model of a generation: that of `checkpoint`, or one of those in `models`.

    Raises NotServable where none has its fingerprint, FileNotFoundError and ValueError where
    `checkpoint` is no model.
    """
    folder = model_folder(settings, manifest.model_fingerprint)
    encoder = inference.load(settings.checkpoint if folder is None else folder)
    if encoder.fingerprint != manifest.model_fingerprint:
        raise NotServable(
            "the index was built by another model; build it again with this checkpoint, or put "
            "that model into the folder CLUE_MODELS",
            {"model": encoder.fingerprint, "index_model": manifest.model_fingerprint},
        )
    return encoder


def model_folder(settings: Settings, fingerprint: str) -> Path | None:
    """Return where the model with this fingerprint lies, None where it is not here."""
    models = settings.models
    folders = sorted(models.iterdir()) if models and models.is_dir() else list[Path]()
    for folder in (settings.checkpoint, *folders):
        try:
            if find_source(folder).fingerprint == fingerprint:
                return folder
        except (OSError, ValueError):  # no model
            continue
    return None


def catch_up(store: Store, engine: Engine) -> None:
    """Take all that the store has and the engine has not; raises BrokenStore."""
    while changes := store.changes(engine.delta.applied, engine.encoder.fingerprint):
        engine.delta.apply(changes)
