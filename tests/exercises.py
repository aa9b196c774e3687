"""Each exercise's solution passes its check: once nbval has run a notebook, solutions take the stubs' places
and their cells run again, in the same kernel, as they do for a reader who has solved them."""

import copy
import re
from collections import defaultdict

from nbval.plugin import IPyNbCell, IPyNbFile

MARK = "# your code"
STUB = re.compile(r"^def (\w+)\(.*?\):\n(?:    .*\n|\n(?=    ))*?    return .*# your code.*\n", re.M)


def solved(source: str, prose: str) -> tuple[str, str]:
    """(an exercise's cell with the solution that `prose` gives in its stub's place, the function's name)"""
    stub = STUB.search(source)
    assert stub, f"no stub that this test understands in\n{source}"
    found = re.search(rf"```python\n(def {stub[1]}\(.*?)```", prose, re.S)
    assert found, f"no solution of {stub[1]}"
    return source.replace(stub[0], found[1]), stub[1]


class Notebook(IPyNbFile):
    """nbval's notebook: its cells, then its solutions."""

    def collect(self):
        cells = list(super().collect())
        yield from cells
        prose = "\n".join(cell.source for cell in self.nb.cells if cell.cell_type == "markdown")
        for item in cells:
            if MARK in item.cell.source:
                cell = copy.deepcopy(item.cell)
                cell.source, name = solved(cell.source, prose)
                yield Solution.from_parent(
                    self,
                    name=f"solution of {name}",
                    cell_num=item.cell_num,
                    cell=cell,
                    options=defaultdict(bool),
                )


class Solution(IPyNbCell):
    """A solution in its stub's place. The check says "right" at its end: one that didn't run says nothing."""

    def runtest(self):
        super().runtest()
        printed = "".join(
            o.text for o in self.test_outputs if o.output_type == "stream" and o.name == "stdout"
        )
        if not printed.endswith("right\n"):
            self.raise_cell_error("the check did not come to its end", "\n" + printed)
