"""Command: the generated parts of README.md and of docs/: tables, figures, keys and the file map.

    python -m benchmarks.report.docs

A part lies between two comments, such as `<!-- speed:NAME -->` and `<!-- /speed -->`. `files`
is made from the first line of each module's docstring, `config:NAME` from a command's dataclass,
`speed:NAME` from results/speed/NAME.json, `gpu` from results/gpu/summary.json,
`transfer:NAME` and `headline:NAME` from results/suite/NAME/table.md, `ablation:NAME` from what
`benchmarks.suite.ablation` wrote beside it, `probes:NAME` from the scores there, `sizing` from
results/sizing.json, `scaling:NAME` from the files below results/scaling/NAME, `law:NAME` from
results/law/NAME/law.json; `batch_size`, `robustness`, `strategies` and `scaling` (the fitter's
reference) from the files that those commands wrote.
"""

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.law import docs_part
from benchmarks.metrics.format import markdown as table
from benchmarks.metrics.format import show
from benchmarks.report import config_reference, sizing
from benchmarks.scaling import compare, study_tables
from benchmarks.scaling.validation import reference
from benchmarks.speed import gpu
from benchmarks.speed.report import markdown, read_report
from benchmarks.suite import results
from clue.config import run_command


@dataclass(frozen=True, kw_only=True)
class DocsConfig:
    """The checkout whose README.md and docs/ are rewritten."""

    root: Path = Path()


def pages(root: Path) -> list[Path]:
    """Return the pages that may hold generated parts, relative to the checkout `root`."""
    docs = sorted((root / "docs").rglob("*.md"))
    return [Path("README.md"), *(file.relative_to(root) for file in docs)]


def render(root: Path, page: Path = Path("README.md")) -> str:
    """Return a page of the checkout `root` with its generated parts made anew.

    Raises ValueError for a module without a docstring, and what `read_report`
    raise.
    """
    up = "../" * (len(page.parts) - 1)

    def part(match: re.Match[str]) -> str:
        kind, name = match.groups()
        # Figures are given from the root, and linked from where the page lies.
        body = PARTS[kind](root, name).replace("](results/", f"]({up}results/")
        return f"<!-- {kind}{':' + name if name else ''} -->\n{body}\n<!-- /{kind} -->"

    return PART.sub(part, (root / page).read_text(encoding="utf-8"))


def unmeasured_on_gpu(root: Path) -> str:
    """Return a list of the parts of `make gpu` whose figures are missing, each with the reason."""
    parts = gpu.missing(root / "results" / "gpu")
    return "\n".join(["```text", *(parts or ["nothing: every part was"]), "```"])


def transfer_table(root: Path, name: str) -> str:
    """Return the table of a suite; FileNotFoundError where it was not written."""
    return (root / "results" / "suite" / name / "table.md").read_text(encoding="utf-8").strip()


def ablation_table(root: Path, name: str) -> str:
    """Return what leaving out each block costs; FileNotFoundError where it was not written."""
    file = root / "results" / "suite" / name / "ablation" / "ablation.md"
    return file.read_text(encoding="utf-8").strip()


def headline(root: Path, name: str) -> str:
    """Return the table of a suite with the columns that a first look needs."""
    shown = ("task", "measure", "CLUE", "TF-IDF + SVD", "best other row", "CLUE - best baseline")
    lines = transfer_table(root, name).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    columns = [rows[0].index(column) for column in shown]
    return "\n".join("| " + " | ".join(row[at] for at in columns) + " |" for row in rows)


def probe_table(root: Path, name: str) -> str:
    """Return the main measure of each row of a suite by each of its probes."""
    made = results.read(root / "results" / "suite" / name)
    probes = list(dict.fromkeys(one.probe for one in sorted(made, key=_probe_place)))
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for one in made:
        key = one.task, one.main, f"{one.model}, seed {one.seed}" if one.seed else one.model
        rows.setdefault(key, {})[one.probe] = show(one.main, one.values[one.main])
    lines = [[*key, *(row.get(probe, "") for probe in probes)] for key, row in rows.items()]
    return table(("task", "measure", "row", *probes), lines)


def _probe_place(one: results.TaskResult) -> tuple[bool, bool, int]:
    shots = one.probe.removesuffix("-shot")
    return not one.main_probe, shots.isdigit(), int(shots) if shots.isdigit() else len(shots)


def file_map(root: Path, packages: tuple[str, ...] = ("clue", "benchmarks", "serving")) -> str:
    """Return the tree of the packages as a text block, each file with what it says of itself."""
    lines: list[tuple[str, str]] = []
    for package in packages:
        files = sorted((root / package).rglob("*.py"), key=_place)
        for file in files:
            depth = len(file.relative_to(root).parts) - 1
            if file.name == "__init__.py":
                lines.append((f"{'  ' * (depth - 1)}{file.parent.name}/", first_line(file)))
            else:
                lines.append((f"{'  ' * depth}{file.name}", first_line(file)))
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(["```text", *(f"{name:<{width}}{says}" for name, says in lines), "```"])


def first_line(file: Path) -> str:
    """Return the first line of a module's docstring; raises ValueError where there is none."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    if not docstring:
        raise ValueError(f"{file} has no docstring; its first line is the README's file map")
    return docstring.splitlines()[0]


def sweep_comparison(root: Path, name: str) -> str:
    """Return the command, figure and tables of a study of one factor, results/NAME/compare.json.

    Raises FileNotFoundError without its results.
    """
    folder = Path("results") / name
    tree = json.loads((root / folder / "compare.json").read_text(encoding="utf-8"))
    made = f"{tree['made'].capitalize()}; now it is\n\n" if "made" in tree else ""
    command = f"python -m benchmarks.scaling sweep configs/sweep/{name}.yaml"
    picture = f"![{', '.join(tree['by'])} and {tree['factor']}: scores]({folder}/compare.svg)"
    return f"{made}```bash\n{command}\n```\n\n{picture}\n\n{compare.table(tree)}"


def scaling(root: Path, name: str) -> str:
    """Return a study of our own by its name; without one the fitter on published runs."""
    if name:
        return study_tables.markdown(root, name)
    return reference.markdown(_json(root, "scaling", "reference"))


def robustness(root: Path) -> str:
    """Return what the kills came to, in one sentence."""
    file = root / "results" / "robustness" / "robustness.json"
    tree = json.loads(file.read_text(encoding="utf-8"))
    end = "equal" if tree["equals_the_undisturbed_run_bitwise"] else "NOT equal"
    return (
        f"{tree['kills']} kills with -9, {tree['inside_save']} of them inside the save: "
        f"{tree['torn_or_lost_checkpoints']} checkpoints torn or lost, at most "
        f"{tree['most_steps_lost']} step lost at a time, the end bitwise {end} to that of an "
        f"undisturbed run."
    )


def _json(root: Path, folder: str, name: str) -> Any:
    return json.loads((root / "results" / folder / f"{name}.json").read_text(encoding="utf-8"))


def _place(file: Path) -> tuple[object, ...]:
    """Sort a package's own files before its folders, and its __init__.py first of all."""
    *folders, name = file.parts
    return (*((True, folder) for folder in folders), (False, name != "__init__.py", name))


PARTS: dict[str, Callable[[Path, str], str]] = {
    "files": lambda root, _: file_map(root),
    "gpu": lambda root, _: unmeasured_on_gpu(root),
    "robustness": lambda root, _: robustness(root),
    "settings": lambda root, _: config_reference.settings(root),
    "sizing": lambda root, _: sizing.markdown(root),
    "batch_size": lambda root, _: sweep_comparison(root, "batch_size"),
    "strategies": lambda root, _: sweep_comparison(root, "strategies"),
    "config": lambda _, name: config_reference.markdown(name),
    "speed": lambda root, name: markdown(read_report(root / "results" / "speed" / f"{name}.json")),
    "scaling": scaling,
    "law": docs_part.markdown,
    "transfer": transfer_table,
    "probes": probe_table,
    "ablation": ablation_table,
    "headline": headline,
}
PART = re.compile(rf"<!-- ({'|'.join(PARTS)}):?(\w*) -->\n.*?<!-- /\1 -->", re.DOTALL)


def main() -> None:
    """Rewrite README.md and the pages below docs/."""

    def write(config: DocsConfig) -> None:
        for page in pages(config.root):
            text = render(config.root, page)
            (config.root / page).write_text(text, encoding="utf-8")

    run_command(DocsConfig, write, description=__doc__)


if __name__ == "__main__":
    main()
