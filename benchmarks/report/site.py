"""Hooks of mkdocs: the figures below results/ are linked as in the checkout, and copied."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

FIGURE = re.compile(r"\]\((?:\.\./)+results/([^)\s]+\.svg)\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Return the site's files and beside them every figure of results/, as figures/PATH."""
    results = Path(config.config_file_path).parent / "results"
    for figure in sorted(results.rglob("*.svg")):
        name = figure.relative_to(results).as_posix()
        files.append(File.generated(config, f"figures/{name}", abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Return a page whose links to results/X.svg, right in the checkout, are those of the site."""
    up = "../" * page.file.src_uri.count("/")
    return FIGURE.sub(rf"]({up}figures/\1)", markdown)
