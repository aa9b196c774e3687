"""An answer as HTML: each citation is a link to the sentence that it means, in the sources beside it."""

from ragkit.generation.answer import Answer
from ragkit.generation.citing import MARK, Place, cited_places, marks_of
from ragkit.retrieval.corpus import Hit
from ragkit.widgets.parts import block, escaped

SHOWN = 3000  # characters of a passage, around the sentence that is cited
BEFORE = 600  # of them in front of it
NEAR = "the sentence nearest in words to what the answer says"


def reply(answer: Answer, hits: list[Hit], name: str) -> str:
    """The answer's text with its citations. `name`: what its sources are called on the page; `sources`.

    A number in brackets that the quoted document brought along is no link, and looks and is read otherwise.
    """
    parts, at, own = [], 0, {match.span(): int(match[1]) for match in marks_of(answer)}
    for match in MARK.finditer(answer.text):
        if match.span() not in own and answer.marks is None:
            continue  # free text, of which nobody knows
        shown = _link(own[match.span()], hits, name) if match.span() in own else _no_citation(match[1])
        parts += [escaped(answer.text[at : match.start()]), shown]
        at = match.end()
    parts.append(escaped(answer.text[at:]))
    placed = own.values()
    parts += [" " + _link(number, hits, name) for number in answer.citations if number not in placed]
    return f'<div class="rk-answer" dir="auto">{"".join(parts)}</div>'


def sources(answer: Answer, hits: list[Hit], name: str) -> str:
    """What the answer was written from: the documents that it cites unfolded, their sentences marked."""
    if not hits:
        return block("No documents were found.", "rk-hint")
    places = cited_places(answer, hits)
    documents = [_source(n, hit, places.get(n), name) for n, hit in enumerate(hits, 1)]
    return block("What it was written from", "rk-hint") + "".join(documents)


def _link(number: int, hits: list[Hit], name: str) -> str:
    place, title = f"{name}-{number}", escaped(f"Source {number}: {title_of(hits[number - 1])}")
    told = f'aria-label="{title}" aria-describedby="{place}" title="{title}" data-source="{number}"'
    return f'<a class="rk-cite" href="#{place}" {told}>[{number}]</a>'


def _no_citation(number: str) -> str:
    told = f"{number} in brackets, which stands in the document and is no citation"
    return f'<span class="rk-own" role="img" aria-label="{told}" title="{told}">[{number}]</span>'


def title_of(hit: Hit) -> str:
    """What a document is called: its title, or else its id, and its section."""
    passage = hit.passage
    section = passage.metadata.get("section")
    return (passage.title or passage.id) + (f" > {section}" if section else "")


def _source(number: int, hit: Hit, places: list[Place] | None, name: str) -> str:
    cited = places is not None
    mark = ' <span class="rk-cited">cited</span>' if cited else ""
    head = f'<span class="rk-name">[{number}]</span>{block(title_of(hit), "rk-title", "span")}{mark}'
    body = _marked(hit.passage.text, places or [], f"{name}-{number}")
    label = escaped(f"Source {number}: {title_of(hit)}")
    return (
        f'<details class="rk-source rk-source-{number}" aria-label="{label}"{" open" * cited}>'
        f"<summary>{head}</summary>"
        f'<div class="rk-text" dir="auto">{body}</div></details>'
    )


def _marked(text: str, places: list[Place], name: str) -> str:
    """A passage's text with its places marked; of a very long one what stands around the first."""
    start = max(0, places[0].start - BEFORE) if places and len(text) > SHOWN else 0
    end = start + SHOWN
    parts, at = ["… " * bool(start)], start
    for n, place in enumerate(place for place in places if place.start < end):
        identity = f' id="{name}"' if n == 0 else ""
        told = "" if place.exact else f' title="{NEAR}"'
        until = min(place.end, end)
        parts.append(escaped(text[at : place.start]))
        parts.append(f'<mark class="rk-mark"{identity}{told}>{escaped(text[place.start : until])}</mark>')
        at = until
    parts += [escaped(text[at:end]), " …" * (end < len(text))]
    return "".join(parts)
