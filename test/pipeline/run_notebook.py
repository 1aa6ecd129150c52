"""Runs a notebook as Jupyter does and says what its cells gave: run_notebook.py NOTEBOOK."""

import json
import sys

import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
print(json.dumps({
    "text": "".join(output.text for output in outputs if output.get("name") == "stdout"),
    "images": sum("image/png" in output.get("data", {}) for output in outputs),
    "tables": sum("text/html" in output.get("data", {}) for output in outputs),
}))
