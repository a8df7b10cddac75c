"""The rules of the tree hold: who may import whom, how long a file may be, which names are free."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("clue", "serving", "benchmarks", "tests")
MOST_LINES = 350
# A path of somebody's own machine. The words stand apart here, or this file would name one too.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|home|Users|tmp)" + r"/\w")


def python_files() -> list[Path]:
    """Return every Python file of ours."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_imports_point_one_way() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout
    analysed = re.search(r"Analyzed (\d+) files", result.stdout)
    ours = [path for path in python_files() if path.relative_to(ROOT).parts[0] != "tests"]
    assert analysed and int(analysed.group(1)) >= len(ours) > 40
    assert "4 kept, 0 broken" in result.stdout


PLANTED = {
    "serving.index": "benchmarks",
    "clue.evaluation.ranking": "serving",
    "clue.config": "serving",
    "clue.nn.dual_encoder": "clue.train",
    "clue.data.views": "torch",
    "clue.embed": "faiss",
}


def test_planted_imports_are_found(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("clue", "serving", "benchmarks"):
        no_caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=no_caches)
    (tmp_path / "clue" / "unplaced.py").touch()
    lines: dict[str, int] = {}
    for importer, imported in PLANTED.items():
        file = (tmp_path / importer.replace(".", "/")).with_suffix(".py")
        lines[importer] = len(file.read_text().splitlines()) + 1
        with file.open("a") as planted:
            planted.write(f"import {imported}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1 and "0 kept, 4 broken" in result.stdout, result.stdout
    for importer, imported in PLANTED.items():
        shown = rf"\b{importer} (-> {imported} )?\(l\.{lines[importer]}\)"
        assert re.search(shown, result.stdout), f"{shown}\n{result.stdout}"
    assert "- clue.unplaced" in result.stdout and len(lines) == 6


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in python_files()}
    assert len(lengths) > 60
    assert not {p.name: n for p, n in lengths.items() if n > MOST_LINES}


def test_every_package_folder_has_an_init() -> None:
    folders = {path.parent for path in python_files()}
    assert len(folders) > 8
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_clue_hides_no_other_module() -> None:
    # `accelerate launch clue/pretrain.py` puts clue/ first on sys.path: clue/types.py would be
    # `import types` for the standard library itself.
    taken = sys.stdlib_module_names | packages_distributions().keys() - {"clue", "serving"}
    assert len(taken) > 300
    entries = [path for path in (ROOT / "clue").iterdir() if not path.name.startswith("__")]
    ours = [path.stem for path in entries if path.suffix in {"", ".py"}]
    assert len(ours) > 8
    assert not taken.intersection(ours)


def test_no_path_of_a_machine_is_written_down() -> None:
    kinds = {".py", ".yaml", ".toml", ".md", ".txt", ".html", ".js", ".css"}
    places = [ROOT / name for name in (*PACKAGES, "configs", ".ci")]
    files = [p for place in places for p in place.rglob("*") if p.suffix in kinds]
    files += [p for p in ROOT.iterdir() if p.is_file() and p.suffix in kinds | {""}]
    assert len(files) > 80
    found = {p.name: m.group() for p in files if (m := MACHINE_PATH.search(p.read_text()))}
    assert not found


def test_the_changelog_opens_with_this_version() -> None:
    newest = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest.group(1) == version("clue-users")
