"""What many tests share, made once a run: a small corpus, models of each kind, their indexes."""

import fcntl
import os
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVICES = ("shop", "news", "films")


@dataclass(frozen=True)
class TinyRun:
    """A prepared corpus and a pretrained run, small enough for tests."""

    corpus: Path
    run: Path


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return `name` in the folder that all workers share; the first to ask calls `make(folder)`.

    Nothing in it may be changed: who needs to takes a copy.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the folders of the workers lie side by side
        root = root.parent
    shared = root / "shared"
    shared.mkdir(exist_ok=True)
    done = shared / f"{name}.done"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(shared)
            done.touch()
    return shared / name


def trained(out: Path, name: str, *keys: str) -> None:
    """Pretrain a model of the tiny corpus in `out`."""
    from clue.config import load
    from clue.pretrain import pretrain
    from clue.run.pretrain_config import PretrainConfig

    common = [f"name={name}", f"corpus={out / 'corpus'}", f"runs={out}", "trackers=[]"]
    assert pretrain(load(PretrainConfig, None, [*common, "precision=fp32", *keys]))


def indexed(out: Path, name: str, run: TinyRun) -> None:
    """Build the index of the tiny corpus by a model, in `out`."""
    from serving.build_index import BuildConfig, build  # FAISS, which few tests need

    build(BuildConfig(checkpoint=run.run, corpus=run.corpus, out=out / name))


@pytest.fixture(autouse=True)
def _one_thread() -> Generator[None]:
    """Take back the threads that a measured command gave to torch in this process.

    Two of them, waiting for each other on busy cores, made the tests after them up to 45 times
    slower: test_transfer.py with six workers on two cores 68 s, alone 1.5 s.
    """
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """What the project's commands make: a synthetic world, prepared, a few steps of pretraining."""

    def make(out: Path) -> None:
        from clue.config import load
        from clue.prepare import PrepareConfig, prepare
        from clue.synthetic.world import SyntheticConfig, write_world

        logs = out / "logs"
        write_world(SyntheticConfig(users=300, items_per_service=120), logs)
        texts = ", ".join(
            f"{name}: {{template: '{{title}}'}}" for name in ("shop", "news", "films")
        )
        keys = ["name=tiny", f"out={out / 'corpus'}", f"services={{{texts}}}"]
        keys += [f"events=[{logs}/events.parquet]", f"items=[{logs}/items.parquet]"]
        keys += ["tokenizer.vocab_size=700", "fields={amount: numeric, channel: categorical}"]
        prepare(load(PrepareConfig, None, keys), progress=False)
        trained(
            *(out, "tiny", "batch=64", "steps=6", "validate_every=6", "checkpoint_every=6"),
            *("model.item.width=32", "model.item.layers=1", "model.user.width=32"),
            *("model.user.layers=1", "model.user.embedding=24", "model.user.max_events=48"),
        )

    run = made_once(tmp_path_factory, "tiny", make)
    return TinyRun(run.parent / "corpus", run)


@pytest.fixture(scope="session")
def tiny_items(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A next-item model of the same corpus: its items by id, a user's services one history."""

    def make(out: Path) -> None:
        trained(
            *(out, "items", "objective=next_item", "batch=8", "steps=4", "validate_every=4"),
            *("checkpoint_every=4", "decoder.layers=1", "decoder.width=16"),
            *("decoder.heads=2", "decoder.max_events=16"),
        )

    return TinyRun(tiny_run.corpus, made_once(tmp_path_factory, "items", make))


@pytest.fixture(scope="session")
def tiny_universal(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A universal model of the same corpus: contrastive and predictive parts, factors, activity."""

    def make(out: Path) -> None:
        trained(
            *(out, "universal", "objective=universal", "batch=32", "steps=4", "validate_every=4"),
            *("checkpoint_every=4", "model.item.width=16", "model.item.layers=0"),
            *("model.user.width=16", "model.user.embedding=12", "model.user.max_events=48"),
            *("predictive.width=16", "predictive.text_width=8", "windows.batch=16"),
            *("predictive.join=time", "predictive.context=true", "factors.groups=8"),
            *("factors.items=4", "factors.tokens=6", "factors.aligned=5", "factors.contrastive=.5"),
        )

    return TinyRun(tiny_run.corpus, made_once(tmp_path_factory, "universal", make))


@pytest.fixture(scope="session")
def tiny_index(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the tiny run's corpus by its model."""
    name = "index-of-tiny"
    return made_once(tmp_path_factory, name, lambda out: indexed(out, name, tiny_run))
