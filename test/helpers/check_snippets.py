"""Checks Python snippets of documents: they compile, and what they ask of ring2 exists.

Reads [{document, text}] as JSON from standard input and prints a list of complaints. It runs nothing
of a snippet. Names that documents use for results stand for their classes.
"""

import ast
import importlib.util
import inspect
import json
import re
import sys

import ring2

CLASSES = {
    "probe": ring2.Probe,
    "trace": ring2.Trace,
    "tensor": ring2.TensorData,
}


def has(owner, name: str) -> bool:
    """Whether a class or module has an attribute, or a module inside; a constructor's included."""
    if hasattr(owner, name):
        return True
    if owner is ring2:
        return importlib.util.find_spec(f"ring2.{name}") is not None
    return inspect.isclass(owner) and bool(
        re.search(rf"\bself\.{name}\b", inspect.getsource(owner.__init__))
    )


def owner_of(node: ast.expr):
    if not isinstance(node, ast.Name):
        return None
    return ring2 if node.id == "ring2" else CLASSES.get(node.id)


def complaints_of(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = owner_of(node.value)
            if owner is not None and not has(owner, node.attr):
                found.append(f"{ast.unparse(node)} does not exist")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = owner_of(node.func.value)
            called = getattr(owner, node.func.attr, None) if owner is not None else None
            if called is None:
                continue
            allowed = inspect.signature(called).parameters
            if any(one.kind is one.VAR_KEYWORD for one in allowed.values()):
                continue
            found.extend(
                f"{ast.unparse(node.func)} has no argument {keyword.arg}"
                for keyword in node.keywords
                if keyword.arg not in allowed
            )
    return found


def main() -> None:
    complaints = []
    for snippet in json.load(sys.stdin):
        try:
            tree = ast.parse(snippet["text"])
        except SyntaxError as error:
            complaints.append(f"{snippet['document']}: {error}")
            continue
        complaints.extend(f"{snippet['document']}: {text}" for text in complaints_of(tree))
    json.dump(complaints, sys.stdout)


main()
