"""CLUE: user representations learned from behaviour logs of many services.

    import clue

    encoder = clue.load("runs/demo")
    vectors = encoder.encode([{"shop": ["cast iron pan", "apron"], "news": ["how to bake bread"]}])

`prepare`, `pretrain` and `embed` are the commands of the same names as functions of their configs.
Nothing is imported before it is used: `import clue` takes milliseconds and no torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clue.data.corpus import Corpus as Corpus
    from clue.data.ingest.prepare_config import PrepareConfig
    from clue.embed import EmbedConfig as EmbedConfig
    from clue.embed import embed as embed
    from clue.embed import read_embeddings as read_embeddings
    from clue.inference.encoder import Encoder as Encoder
    from clue.inference.encoder import load as load
    from clue.prepare import prepare as prepare
    from clue.pretrain import pretrain as pretrain
    from clue.run.pretrain_config import PretrainConfig as PretrainConfig

    __version__: str

_HOMES = {
    "Corpus": "clue.data.corpus",
    "EmbedConfig": "clue.embed",
    "Encoder": "clue.inference.encoder",
    "PrepareConfig": "clue.data.ingest.prepare_config",
    "PretrainConfig": "clue.run.pretrain_config",
    "embed": "clue.embed",
    "load": "clue.inference.encoder",
    "prepare": "clue.prepare",
    "pretrain": "clue.pretrain",
    "read_embeddings": "clue.embed",
}

__all__ = [
    "Corpus",
    "EmbedConfig",
    "Encoder",
    "PrepareConfig",
    "PretrainConfig",
    "__version__",
    "embed",
    "load",
    "prepare",
    "pretrain",
    "read_embeddings",
]


def __getattr__(name: str) -> Any:
    """Return a public name, imported at its first use (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("clue-users")
    if name not in _HOMES:
        raise AttributeError(f"module 'clue' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__


class _Package(ModuleType):
    """This package, of which `prepare`, `pretrain` and `embed` are the functions, always.

    They have the names of the files that hold them, and Python binds a submodule to its package
    when anything imports it: `clue.prepare` would be the function or the file, depending on who
    imported what before. Here the function is bound instead. `from clue.prepare import ...` and
    `python -m clue.prepare` go by the file's own entry in sys.modules and are as ever.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # cloudpickle, by which Spark and Ray send functions, knows modules by their exact class
        return import_module, (__name__,)


sys.modules[__name__].__class__ = _Package
