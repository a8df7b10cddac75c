"""Every shipped configuration file is one that its command accepts."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

from benchmarks.scaling.sweep.sweep_config import SweepConfig
from benchmarks.suite.runner import SuiteConfig
from clue.config import load, to_yaml
from clue.prepare import PrepareConfig
from clue.run.pretrain_config import PretrainConfig

CONFIGS = Path(__file__).parent.parent / "configs"
# A folder is a schema.
CLASSES = {
    "prepare": PrepareConfig,
    "pretrain": PretrainConfig,
    "suite": SuiteConfig,
    "sweep": SweepConfig,
}


def test_every_config_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUE_DATA", "data")
    files = [path for path in CONFIGS.rglob("*") if path.is_file()]
    loaded = 0
    for path in files:
        kind = path.relative_to(CONFIGS).parts[0]
        if kind == "accelerate":
            machine = load_config_from_file(str(path))
            assert isinstance(machine, ClusterConfig) and machine.num_processes >= 1
        else:
            load(CLASSES[kind], path)
        loaded += 1
    assert loaded == len(files) >= 8


@pytest.mark.parametrize("kind", [PretrainConfig, SuiteConfig])
def test_a_config_survives_being_written_and_read(tmp_path: Path, kind: type[object]) -> None:
    config = load(kind, None)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load(kind, tmp_path / "config.yaml") == config


def test_a_misspelt_key_is_refused_by_its_path() -> None:
    with pytest.raises(ValueError, match=r"unknown key model\.item\.layres"):
        load(PretrainConfig, None, ["model.item.layres=3"])
