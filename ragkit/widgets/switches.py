"""What the chat answers with: which model, from how many documents, in whose order."""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets

from ragkit.generation.generator import SHIPPED, Generator
from ragkit.widgets.parts import part, set_visible

DOCUMENTS = (1, 2, 3, 4, 5, 8, 10)
NAMES = {"SmolLM2 reader": "smollm2-reader", "tiny": "tiny-rag-lm"}  # what ships, where one of them answers


class Switch:
    """A labelled list to choose from, `.box`; it hides while there is no choice. `.value` is what is chosen;
    `changed`, if given, is called when that is another one."""

    def __init__(self, label: str, name: str, options: Sequence, value, changed: Callable | None = None):
        box = ipywidgets.Dropdown(options=options, value=value, description=label, tooltip="")
        self.box = part(box, f"rk-{name}")
        self._changed = changed or (lambda: None)
        self.box.observe(self._on_change, "value")
        self.offer(options, value)

    @property
    def value(self):
        return self.box.value

    def offer(self, options: Sequence, value) -> None:
        """These options, and of them this one is chosen."""
        if list(self.box.options) != list(options):
            self.box.unobserve(self._on_change, "value")  # new options choose their first, for a moment
            self.box.options = options
            self.box.observe(self._on_change, "value")
        self.box.value = value
        set_visible(self.box, len(options) > 1)

    def _on_change(self, _) -> None:
        self._changed()


class Models:
    """Generators by the names that the switch shows; each is loaded when it is first asked for.

    `given`: the one that answers unless another is chosen. `names`: {"tiny": "tiny-rag-lm", …}, a
    `Generator`'s name or folder, or what answers itself.
    """

    def __init__(self, given, names: Mapping[str, object] | None, encoder):
        own = getattr(given, "name", type(given).__name__)
        names = dict(names or (NAMES if own in SHIPPED else {}))
        known = [name for name, model in names.items() if model is given or model == own]
        self.first = known[0] if known else own
        self._models = ({} if known else {own: given}) | names | {self.first: given}
        self._encoder = encoder

    @property
    def names(self) -> list[str]:
        return list(self._models)

    def is_loaded(self, name: str) -> bool:
        return not isinstance(self._models[name], str)

    def get(self, name: str):
        """The generator. Raises OSError where its weights are missing, and is asked again the next time."""
        if not self.is_loaded(name):
            self._models[name] = Generator(self._models[name], self._encoder)
        return self._models[name]
