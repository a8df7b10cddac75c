import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class TinyRun:
    """A prepared corpus and a pretrained run, small enough for tests."""

    corpus: Path
    run: Path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Made by the project's own commands: synthetic world, prepare, a few steps of pretraining."""
    root = tmp_path_factory.mktemp("tiny")
    logs, corpus = root / "logs", root / "corpus"
    _command("-m", "clue.synthetic.world", "users=300", "items_per_service=120", f"out={logs}")
    texts = ", ".join(f"{name}: {{template: '{{title}}'}}" for name in ("shop", "news", "films"))
    _command(
        *("clue/prepare.py", "name=tiny", f"out={corpus}", f"services={{{texts}}}"),
        *(f"events=[{logs}/events.parquet]", f"items=[{logs}/items.parquet]"),
        *("tokenizer.vocab_size=700", "fields={amount: numeric, channel: categorical}"),
    )
    _command(
        *("clue/pretrain.py", "name=tiny", f"corpus={corpus}", f"runs={root}", "trackers=[]"),
        *("batch=64", "steps=6", "validate_every=6", "checkpoint_every=6", "precision=fp32"),
        *("model.item.width=32", "model.item.layers=1", "model.user.width=32"),
        *("model.user.layers=1", "model.user.embedding=24", "model.user.max_events=48"),
    )
    return TinyRun(corpus, root / "tiny")


@pytest.fixture(scope="session")
def tiny_index(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the tiny run's corpus by its model."""
    from serving.build_index import BuildConfig, build  # FAISS, which few tests need

    out = tmp_path_factory.mktemp("indexes") / "tiny"
    build(BuildConfig(checkpoint=tiny_run.run, corpus=tiny_run.corpus, out=out))
    return out


@pytest.fixture(scope="session")
def tiny_items(tiny_run: TinyRun) -> TinyRun:
    """A next-item model of the same corpus: its items by id, a user's services one history."""
    root = tiny_run.run.parent
    _command(
        *("clue/pretrain.py", "name=items", f"corpus={tiny_run.corpus}", f"runs={root}"),
        *("trackers=[]", "objective=next_item", "batch=8", "steps=4", "validate_every=4"),
        *("checkpoint_every=4", "precision=fp32", "decoder.layers=1", "decoder.width=16"),
        *("decoder.heads=2", "decoder.max_events=16"),
    )
    return TinyRun(tiny_run.corpus, root / "items")


@pytest.fixture(scope="session")
def tiny_universal(tiny_run: TinyRun) -> TinyRun:
    """A universal model of the same corpus: contrastive and predictive parts, factors, activity."""
    root = tiny_run.run.parent
    _command(
        *("clue/pretrain.py", "name=universal", f"corpus={tiny_run.corpus}", f"runs={root}"),
        *("trackers=[]", "objective=universal", "batch=32", "steps=4", "validate_every=4"),
        *("checkpoint_every=4", "precision=fp32", "model.item.width=16", "model.item.layers=0"),
        *("model.user.width=16", "model.user.embedding=12", "model.user.max_events=48"),
        *("predictive.width=16", "predictive.text_width=8", "windows.batch=16"),
        *("predictive.join=time", "predictive.context=true", "factors.groups=8"),
        *("factors.items=4", "factors.tokens=6", "factors.aligned=5", "factors.contrastive=.5"),
    )
    return TinyRun(tiny_run.corpus, root / "universal")


def _command(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
