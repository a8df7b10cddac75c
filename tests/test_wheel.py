"""The wheel holds all it needs: installed alone, it does a whole small job outside the checkout."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parent.parent
TEMPLATES = "services={shop: {template: '{title}'}, news: {template: '{title}'}}"
JOB = [
    "clue.synthetic.world users=120 items_per_service=80 services=[shop,news] out=world",
    "clue.prepare name=tiny events=[world/events.parquet] items=[world/items.parquet]",
    "clue.pretrain name=tiny corpus=corpora/tiny steps=2 batch=16 trackers=[] model.item.layers=1",
    "clue.embed checkpoint=runs/tiny corpus=corpora/tiny out=vectors.parquet",
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
    (Path(libraries) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    found = run(python, "-c", "import clue, serving.app; print(clue.__file__)", cwd=here)
    assert Path(found.strip()).is_relative_to(tmp_path / "env")
    for line in JOB:
        module, *arguments = line.split()
        if module == "clue.prepare":
            arguments.append(TEMPLATES)
        run(python, "-m", module, *arguments, cwd=here)
    table = pq.read_table(here / "vectors.parquet")
    assert set(table["service"].to_pylist()) == {"shop", "news", "all"}
    assert table.num_rows > 200
