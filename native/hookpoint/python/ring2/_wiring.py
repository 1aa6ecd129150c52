"""Whether the modules that hooks are on are still the ones that a model uses.

A module can be replaced after hooks were put on it: an adapter around a projection, a quantised
linear in its place. Its hooks then stay on a module that nobody calls, or that is only part of what
takes its place. Looked at before a prompt, not at every token.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple


class _Link(NamedTuple):
    children: dict[str, Any]  # of the parent, as torch keeps them
    name: str
    path: str
    module: Any


class Wiring:
    """Where modules hang in a model, from the model down to each of them."""

    def __init__(self, model: Any, modules: Iterable[Any]) -> None:
        places: dict[int, tuple[Any, _Link]] = {}
        for path, parent in model.named_modules():
            for name, module in parent._modules.items():
                link = _Link(parent._modules, name, f"{path}.{name}" if path else name, module)
                places.setdefault(id(module), (parent, link))
        links: dict[int, _Link] = {}
        for module in modules:
            place = places.get(id(module))
            while place is not None and id(place[1].module) not in links:
                links[id(place[1].module)] = place[1]
                place = places.get(id(place[0]))
        self._links = tuple(links.values())

    def replaced(self) -> list[str]:
        """What is not where it was: ``path (class of what is there now)``."""
        return [
            f"{link.path} ({type(link.children.get(link.name)).__name__})"
            for link in self._links
            if link.children.get(link.name) is not link.module
        ]
