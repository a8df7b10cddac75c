"""The wheel holds all it needs: installed alone, it does a whole small job outside the checkout."""

import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import metadata, version
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).parent.parent
TEMPLATES = "services={shop: {template: '{title}'}, news: {template: '{title}'}}"
JOB = [
    "synthetic users=120 items_per_service=80 services=[shop,news] out=world",
    "prepare name=tiny events=[world/events.parquet] items=[world/items.parquet]",
    "pretrain name=tiny corpus=corpora/tiny steps=2 batch=16 trackers=[] model.item.layers=1",
    "embed checkpoint=runs/tiny corpus=corpora/tiny out=vectors.parquet",
    "index checkpoint=runs/tiny corpus=corpora/tiny out=index",
    "export checkpoint=runs/tiny out=model",
]


def run(*command: str | Path, cwd: Path) -> str:
    """Return what a process printed, in an environment that knows nothing of the checkout."""
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(cwd)}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def test_it_holds_the_two_packages_whole_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        information = {Path(name).name for name in archive.namelist()} - packed
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in ("clue", "serving")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert packed == ours
    assert {"clue/py.typed", "serving/py.typed", "clue/pretrain.py", "serving/app.py"} <= packed
    assert {"METADATA", "LICENSE"} <= information


def test_it_does_the_whole_job_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    here = tmp_path / "elsewhere"
    here.mkdir()
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--no-deps",
        wheel,
        cwd=here,
    )
    # The other packages come from the environment of the tests. A folder named in a .pth file has
    # its own .pth files left unread, the one of the editable install among them.
    libraries = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")})
    (Path(libraries) / "others.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")

    script = tmp_path / "env" / "bin" / "clue"
    # The console script itself, then the rest in one process: each start imports torch for 3 s.
    run(script, *JOB[0].split(), cwd=here)
    rest = [line.split() + [TEMPLATES] * line.startswith("prepare") for line in JOB[1:]]
    code = [
        f"from clue import cli\nfor line in {rest}: cli.main(line)",
        "import clue, serving.app",
        "for made in ('runs/tiny', 'model'): print(clue.load(made).fingerprint)",
        "print(clue.__file__)",
    ]
    *_, first, second, imported = run(python, "-c", "\n".join(code), cwd=here).splitlines()
    assert first == second and len(first) > 8
    assert Path(imported).is_relative_to(tmp_path / "env")
    table = pq.read_table(here / "vectors.parquet")
    assert set(table["service"].to_pylist()) == {"shop", "news", "all"}
    assert table.num_rows > 200
    assert run(script, "--version", cwd=here) == f"clue {version('clue-users')}\n"
    done = subprocess.run([script, "bench", "suite"], cwd=here, capture_output=True, text=True)
    assert done.returncode == 2 and "in a clone of the repository" in done.stderr


def test_the_source_archive_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    # without --wheel and --sdist: the archive, and from what it holds the wheel
    run(sys.executable, "-m", "build", "--no-isolation", "-o", tmp_path, ROOT, cwd=tmp_path)
    (archive,), (again,) = tmp_path.glob("*.tar.gz"), tmp_path.glob("*.whl")
    with tarfile.open(archive) as packed:
        top = {name.split("/")[1] for name in packed.getnames() if "/" in name}
    assert {"README.md", "LICENSE", "CITATION.cff", "configs"} <= top
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as two:
        assert {info.filename: info.CRC for info in one.infolist()} == {
            info.filename: info.CRC for info in two.infolist()
        }


def test_the_metadata_and_the_citation_say_the_same() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"authors", "cff-version", "message", "title"} <= cited.keys()
    known = metadata("clue-users")
    assert cited["version"] == version("clue-users")
    assert cited["license"] == known["License-Expression"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [one["name"] for one in cited["authors"]] == [one["name"] for one in project["authors"]]
    assert set(cited["keywords"]) <= set(project["keywords"])
