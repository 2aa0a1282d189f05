"""Run the tutorial's notebook from its first cell to its last.

Prints each section and the time that it took, and writes the executed notebook and an HTML page
of it.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import tempfile
import time
import warnings
from pathlib import Path
from urllib.parse import quote, unquote

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.filters import strip_ansi

from . import __version__
from .errors import ConfigError
from .tutorial import tutorial_file

NOTEBOOK = "notebooks/img-classification-part2-deploy.ipynb"
WIDGET = "application/vnd.jupyter.widget-view+json"
INTERRUPTED, BROKEN_PIPE = 130, 141  # exit statuses: 128 + the signal, as shells report them
# nbconvert's page without RequireJS, widgets, MathJax and Mermaid, loaded from other hosts.
PAGE = """{% extends 'index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block extra_css %}<style>
.jp-OutputArea-output .highlight pre {
  font-family: var(--jp-code-font-family); font-size: var(--jp-code-font-size);
}
.jp-RenderedMarkdown .highlight { margin: 0.5em 0 1em 1em; }
</style>{% endblock %}
"""


class Sections:
    """Prints the heading of a section when its first cell starts, and its duration at its end."""

    def __init__(self, notebook: nbformat.NotebookNode) -> None:
        self.current = ""
        self._cells, self._began = notebook.cells, 0.0

    def start(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        previous = [
            each.source for each in self._cells[:cell_index] if each.cell_type == "markdown"
        ]
        headings = ["Beginning", *re.findall(r"^## (.+)$", "\n".join(previous), re.M)]
        if headings[-1] != self.current and cell.cell_type == "code":
            self.end()
            self.current, self._began = headings[-1], time.monotonic()
            print(f"{self.current:<40}", end="", flush=True)

    def end(self) -> None:
        if self.current:
            print(f"{time.monotonic() - self._began:6.1f} s")


def run_notebook(
    notebook_file: Path, output_dir: Path, parameters: dict[str, str]
) -> nbformat.NotebookNode:
    """Execute a notebook in `output_dir`, and write it there as .ipynb and .html.

    The files are written after a failure as well. If a cell fails, the process exits with the
    section and the last lines of the error.
    """
    try:
        notebook = nbformat.read(notebook_file, as_version=4)
        output_dir.mkdir(parents=True, exist_ok=True)
    except Exception as error:  # nbformat raises many classes
        raise SystemExit(f"{notebook_file} cannot be run in {output_dir}: {error}") from None
    inject(notebook, parameters)
    sections = Sections(notebook)
    try:
        execute(notebook, output_dir, sections)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        lines = strip_ansi(getattr(error, "traceback", str(error))).rstrip().splitlines()
        title = f"\nFailed in section {sections.current!r}:"
        raise SystemExit("\n".join([title, *lines[-15:]])) from None
    except KeyboardInterrupt:
        print(f"\nInterrupted in section {sections.current!r}.", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    finally:
        drop_progress_bars(notebook)
        nbformat.write(notebook, output_dir / notebook_file.name)
        page = render_page(notebook, notebook_file, output_dir)
        (output_dir / f"{notebook_file.stem}.html").write_text(page, encoding="utf-8")
    return notebook


def execute(notebook: nbformat.NotebookNode, folder: Path, sections: Sections) -> None:
    with tempfile.TemporaryDirectory() as sockets:
        kernel = AsyncKernelManager(kernel_name="python3", **transport(sockets))
        client = NotebookClient(
            notebook,
            timeout=3600,  # seconds for each cell
            record_timing=False,
            km=kernel,
            resources={"metadata": {"path": str(folder)}},
            on_cell_start=sections.start,
        )
        # ZeroMQ and tornado add what Windows' default event loop lacks, with a warning.
        warnings.filterwarnings("ignore", "Proactor event loop", RuntimeWarning)
        log = Path(sockets, "kernel.log")
        try:
            with log.open("wb") as output:
                variables = {"PYTHONUTF8": "1", **os.environ}  # as on Azure, also on Windows
                unattended = {**variables, "MNIST_DEPLOY_UNATTENDED": "1"}  # no prompt to log in
                client.execute(cleanup_kc=True, env=unattended, stdout=output, stderr=output)
        except (AssertionError, DeadKernelError) as error:
            if kernel.shutting_down:
                # After Ctrl-C nbclient shuts its kernel down, and raises because none is running.
                logging.getLogger("asyncio").disabled = True
                raise KeyboardInterrupt from None
            if isinstance(error, AssertionError):
                raise
            raise DeadKernelError(f"{error}\n{log.read_text('utf-8', 'replace')}") from None
    sections.end()


def transport(folder: str) -> dict[str, str]:
    """The connection to the kernel, which other users of this machine must not read.

    UNIX sockets in a private folder; on Windows, where ZeroMQ has none, encrypted TCP.
    """
    if sys.platform != "win32":
        return {"transport": "ipc", "ip": f"{folder}/kernel"}
    is_known = hasattr(AsyncKernelManager, "transport_encryption")  # since jupyter_client 8.10
    return {"transport_encryption": "auto"} if is_known else {}


def drop_progress_bars(notebook: nbformat.NotebookNode) -> None:
    """Remove widgets and erased progress bars, which are empty without a running kernel."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [
                output
                for output in cell.outputs
                if WIDGET not in output.get("data", {})
                and not ("text" in output and not strip_ansi(output.text).strip())
            ]


def render_page(notebook: nbformat.NotebookNode, notebook_file: Path, output_dir: Path) -> str:
    """Convert a notebook to one HTML page that loads nothing from other hosts.

    Links to files beside the notebook are rewritten so that they work from `output_dir`.
    """
    resources = {"metadata": {"name": notebook_file.stem}}
    page, _ = HTMLExporter(raw_template=PAGE).from_notebook_node(notebook, resources)

    def relocate(link: re.Match[str]) -> str:
        target = notebook_file.parent / unquote(link[2])
        return link[1] + quote(os.path.relpath(target, output_dir)) if target.exists() else link[0]

    return re.sub(r'(<a [^>]*href=")([^"?#]+)', relocate, page)


def inject(notebook: nbformat.NotebookNode, parameters: dict[str, str]) -> None:
    """Insert a cell that assigns `parameters` after the cell tagged ``parameters``.

    papermill does the same.
    """
    if not parameters:
        return
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    index = next((i for i, each in enumerate(tags) if "parameters" in each), None)
    if index is None:
        raise SystemExit(
            "The notebook has no cell tagged 'parameters', which --data-dir, --config and -p "
            "require. Add the tag to the cell that assigns the parameters."
        )
    known = re.findall(r"^(\w+) *(?::.*)?=", notebook.cells[index].source, re.M)
    if unknown := parameters.keys() - known:
        raise SystemExit(
            f"The notebook has no parameter {unknown.pop()}; expected one of: {', '.join(known)}."
        )
    source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(index + 1, cell)


def summary(notebook: nbformat.NotebookNode) -> str:
    """Return the last printed confusion matrix with its accuracy, and the line about the data."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.text for output in outputs if output.get("name") == "stdout")
    results = re.findall(r"^ *\[\[[^\]]*\](?:\n *\[[^\]]*\])*\]\nOverall accuracy: \S+", text, re.M)
    data = re.findall(r"^MNIST: .*$", text, re.M)
    return "\n".join([*results[-1:], *data[-1:]])


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mnist_deploy", description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="the folder of the MNIST files")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"), help="default: outputs")
    parser.add_argument("--config", type=Path, help="the config.json of a workspace on Azure")
    parser.add_argument("--notebook", type=Path, help="a notebook instead of the tutorial's")
    version = f"mnist-deploy {__version__}"
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="assign a text to a parameter of the notebook, such as: -p aks_cluster my-cluster",
    )  # fmt: skip
    return parser.parse_args(arguments)


def check_config(path: Path) -> None:
    """Exit if the config.json cannot be used, before a kernel starts."""
    from .workspace import find_config, read_config

    try:
        file = find_config(path)
        assert file is not None  # find_config raises ConfigError for a missing file
        read_config(file)
    except ConfigError as error:
        raise SystemExit(str(error)) from None


def main(arguments: list[str] | None = None) -> None:
    from .local.discovery import drop_inherited_cloud

    options = parse_arguments(arguments)
    drop_inherited_cloud()  # a notebook may import SDK v2 before it connects
    if options.config:
        check_config(options.config)
    notebook_file = (options.notebook or tutorial_file(NOTEBOOK)).absolute()
    paths = {"data_dir": options.data_dir, "config": options.config}
    parameters = {name: str(path.absolute()) for name, path in paths.items() if path}
    parameters |= options.parameter
    try:
        notebook = run_notebook(notebook_file, options.output_dir.absolute(), parameters)
        print(f"\n{summary(notebook)}")
        print(f"Results: {options.output_dir}/{notebook_file.stem}.html, .ipynb", flush=True)
    except BrokenPipeError:
        # Python flushes the buffered output at exit, which would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(BROKEN_PIPE) from None


if __name__ == "__main__":
    main()
