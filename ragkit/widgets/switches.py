"""What the chat answers with: which model, from how many documents, in whose order."""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets

from ragkit.generation.generator import SHIPPED, Generator
from ragkit.widgets.parts import part, row, set_visible

DOCUMENTS = (1, 2, 3, 4, 5, 8, 10)
GIVEN, CLICKS = "as found", "my clicks"  # orders: the assistant's own, and what was learned
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


class Switches:
    """The switches of what `assistant` answers with, which is changed as they are; `.boxes` shows them.

    `k`: from how many documents; `models`: see `Models`. There is one order, until another is offered. Raises
    ValueError for k < 1.
    """

    def __init__(self, assistant, k: int, models: Mapping[str, object] | None):
        self._assistant, self._rerankers = assistant, {GIVEN: assistant.reranker}
        self.models = Models(assistant.generator, models, assistant.encoder)
        self._model = Switch("Model", "model", self.models.names, self.models.first)
        self._documents = Switch("Documents", "k", DOCUMENTS, DOCUMENTS[0])
        self._order = Switch("Order", "order", [GIVEN], GIVEN, self._reorder)
        self.boxes = row(self._model.box, self._documents.box, self._order.box)
        self.k = k

    @property
    def k(self) -> int:
        return self._documents.value

    @k.setter
    def k(self, k: int) -> None:
        if k < 1:
            raise ValueError(f"k={k}: at least one document is needed to answer from")
        self._documents.offer(sorted({*DOCUMENTS, k}), k)

    @property
    def by_clicks(self) -> bool:
        """Whether what was learned orders the documents."""
        return self._order.value == CLICKS

    def offer(self, reranker, *, choose: bool) -> None:
        """Let what was learned be an order, and, to `choose` it, the order from now on."""
        self._rerankers[CLICKS] = reranker
        self._order.offer(list(self._rerankers), CLICKS if choose else self._order.value)
        self._reorder()

    def take_model(self, step: Callable[[str], None]) -> None:
        """Have the assistant answer with the chosen model; `step` is told where that has to be loaded.

        Raises OSError where its weights are missing.
        """
        name = self._model.value
        if not self.models.is_loaded(name):
            step(f"Loading {name} …")
        self._assistant.generator = self.models.get(name)

    def _reorder(self) -> None:
        self._assistant.reranker = self._rerankers[self._order.value]
