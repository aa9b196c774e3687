"""The table that `python -m tests.benchmarks` prints: its rows, and how two sides are compared."""

import re
import time
from dataclasses import dataclass
from statistics import median

HEAD = ["work", "ragkit", "peer", "the peer", "ratio", "to reach", "reached", "how it grows"]


@dataclass(frozen=True)
class Row:
    """One line: ours and the peer's figure, how they compare, what was to be reached, and how cost grows.

    `reached`: None where nothing was to be reached, or the peer is not there.
    """

    work: str
    ours: str
    peer: str = ""
    theirs: str = ""
    ratio: str = ""
    target: str = ""
    reached: bool | None = None
    grows: str = ""

    def cells(self) -> list[str]:
        mark = {True: "yes", False: "**no**", None: ""}[self.reached]
        theirs = self.theirs or ("not installed" if self.peer else "")
        return [self.work, self.ours, self.peer, theirs, self.ratio, self.target, mark, self.grows]


def in_turns(sides: dict, turns: int) -> dict[str, list]:
    """What each side, a function of the turn's number, gives in each turn; who begins alternates."""
    found = {name: [] for name in sides}
    for turn in range(turns):
        for name in list(sides) if turn % 2 == 0 else list(reversed(sides)):
            found[name].append(sides[name](turn))
    return found


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ratio(these: list[float], those: list[float]) -> float:
    """The median of these / those, turn by turn."""
    return median(a / b for a, b in zip(these, those))


def spoken(taken: float) -> str:
    """Seconds, with a unit that suits them."""
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
    size, unit = next((one for one in units if taken >= one[0]), units[-1])
    return f"{taken / size:.3g} {unit}"


def table(rows: list[Row]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def written(text: str, parts: dict[str, str]) -> str:
    """`text` with what stands between `<!-- NAME -->` and `<!-- /NAME -->` replaced, for each of `parts`."""
    for name, part in parts.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        if not place.search(text):
            raise ValueError(f"the file has no <!-- {name} --> … <!-- /{name} --> to write the table to")
        text = place.sub(lambda found: found[1] + part + "\n" + found[2], text)  # noqa: B023
    return text
