"""Learn from a person's rankings, and show what that does to the documents of one question."""

import hashlib
import re
from pathlib import Path

from ragkit.preferences.judgements import Ranking
from ragkit.preferences.log import PreferenceLog
from ragkit.reranking.report import FitReport
from ragkit.reranking.reranker import MIN_QUERIES, Reranker
from ragkit.retrieval.corpus import Hit
from ragkit.widgets.answer import title_of
from ragkit.widgets.parts import block, escaped

ROW = 30  # pixels between two documents of a list, as in chat.css
ARROWS = {True: "↑", False: "↓"}


def learned(encoder, rankings: list[Ranking]) -> tuple[Reranker | None, FitReport]:
    """A reranker of these rankings, None where they are too few or show nothing; and the fit's report."""
    reranker = Reranker(encoder, prior="people")
    report = reranker.fit(rankings, progress=False)
    return (None if report.kept_base else reranker), report


def ranked_questions(rankings: list[Ranking]) -> int:
    """How many questions there are of which something can be learned."""
    return len({ranking.query for ranking in rankings if sum(map(len, ranking.tiers)) > 1})


def invitation(questions: int) -> str:
    """How far a person is who has ranked the documents of so many questions."""
    said = f"You ranked the documents of {counted(questions, 'question')}"
    if questions >= MIN_QUERIES:
        return f"{said}."
    return f"{said}; learning starts at {MIN_QUERIES}." if questions else "Nothing ranked yet."


def sentences(report: FitReport) -> str:
    """The report in two sentences."""
    if report.queries < MIN_QUERIES:
        ranked = counted(report.queries, "question")
        return (
            f"You ranked the documents of {ranked}, and it takes {MIN_QUERIES} to tell a taste from chance. "
            f"Rank those of {counted(MIN_QUERIES - report.queries, 'more question')}, and press this again."
        )
    of = f"{counted(report.rankings, 'ranking')} of {counted(report.queries, 'question')}"
    if report.kept_base:
        why = report.reason.removesuffix(": the retriever is kept.")
        return (
            f"Your {of} change nothing yet: {why[:1].lower()}{why[1:]}. "
            "The search's order stays; rank more questions, and press this again."
        )
    return f"From your {of}, {report.share:.0%} of what they seem to say is believed. {report.verdict}"


def counted(number: int, thing: str) -> str:
    """So many of a thing, in words."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def moves(before: list[Hit], after: list[Hit], k: int) -> str:
    """Two lists of documents side by side, and lines from where each was to where it is.

    The first k of a list are those that are read for the answer.
    """
    places = {hit.passage.id: place for place, hit in enumerate(before)}
    lines, rows = [], []
    for place, hit in enumerate(after):
        was = places[hit.passage.id]
        steps = was - place
        kind = "same" if not steps else "up" if steps > 0 else "down"
        y = [ROW * at + ROW // 2 for at in (was, place)]
        lines.append(f'<path class="rk-{kind}" d="M0 {y[0]} C50 {y[0]} 50 {y[1]} 100 {y[1]}"/>')
        moved = f"{ARROWS[steps > 0]}{abs(steps)}" if steps else "="
        told = f"{kind} {abs(steps)}" if steps else "not moved"
        sign = f'<span class="rk-moved rk-{kind}" role="img" aria-label="{told}">{moved}</span>'
        rows.append(_row(hit, place, k, sign))
    size = ROW * len(after)
    drawing = f'<svg viewBox="0 0 100 {size}" height="{size}" preserveAspectRatio="none" aria-hidden="true">'
    old = "".join(_row(hit, place, k, "") for place, hit in enumerate(before))
    return (
        f'<div class="rk-moves"><div>{block("Before", "rk-title")}<ol class="rk-before">{old}</ol></div>'
        f"{drawing}{''.join(lines)}</svg>"
        f'<div>{block("After", "rk-title")}<ol class="rk-after">{"".join(rows)}</ol></div></div>'
    )


def _row(hit: Hit, place: int, k: int, sign: str) -> str:
    last = " rk-last" if place == k - 1 else ""
    return (
        f'<li class="rk-row{" rk-read" * (place < k)}{last}" title="{escaped(hit.passage.text[:300])}">{sign}'
        f'<span class="rk-name">{place + 1}</span>{block(title_of(hit), "rk-doc", "span")}</li>'
    )


# On disk, beside the log: what was learned of each person.


def save(reranker: Reranker, log: PreferenceLog) -> None:
    """Write what was learned. Raises OSError where it can't be written."""
    reranker.save(_file(log))


def load(log: PreferenceLog, encoder) -> Reranker | None:
    """What was learned before, or None. Raises ValueError for a damaged file and for another encoder's."""
    return Reranker.load(_file(log), encoder) if _file(log).is_file() else None


def _file(log: PreferenceLog) -> Path:
    """A file of this annotator's own: two names that look alike as names of files differ in the digits."""
    name = re.sub(r"[^\w-]+", "_", log.annotator)[:40]
    digits = hashlib.sha256(log.annotator.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return log.folder / f"learned-{name}-{digits}.safetensors"
