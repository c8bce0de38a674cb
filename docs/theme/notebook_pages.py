"""Pages of the documentation site made of notebooks/*.py, with outputs where these were run (`make notebooks`)."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import jupytext
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "notebooks"
NOTE = "This page is [notebooks/{name}.py](../notebooks/{name}.py), a notebook in the percent format of jupytext."
NOT_RUN = "It was not run when the site was built: run it yourself, or `make notebooks`, to see what it shows."


def notebook_files(config: MkDocsConfig) -> list[File]:
    """Return the page of each notebook, and the pictures in it."""
    files = []
    for source in sorted(SOURCES.glob("*.py")):
        markdown, pictures = page(source)
        files.append(File.generated(config, f"notebooks/{source.stem}.md", content=markdown))
        files += [
            File.generated(config, f"notebooks/{name}", content=content) for name, content in sorted(pictures.items())
        ]
    return files


def page(source: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and its pictures by name."""
    executed = SOURCES / "executed" / f"{source.stem}.ipynb"
    notebook, is_run = jupytext.read(source), False
    if executed.is_file():
        with_outputs = nbformat.read(executed, as_version=4)
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        if with_outputs.metadata.get("peterrec", {}).get("source_sha256") == digest:
            notebook, is_run = with_outputs, True
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type != "raw"]
    body, resources = MarkdownExporter().from_notebook_node(
        notebook, resources={"unique_key": f"{source.stem}-files", "output_files_dir": None}
    )
    note = NOTE.format(name=source.stem) + ("" if is_run else f" {NOT_RUN}")
    title, _, text = body.lstrip().partition("\n")
    body = re.sub(r"<style scoped>.*?</style>\n?", "", f"{title}\n\n{note}\n{text}", flags=re.DOTALL)
    return body.replace("![png](", "![Figure]("), resources.get("outputs", {})
