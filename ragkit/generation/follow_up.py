"""A follow-up question, completed from the question before it: rules of thumb, for English."""

import re
from itertools import takewhile

LONGEST = 2000  # characters of a question that another one builds on: beyond, it is a document
MOST_TALK = 200  # characters of what asks nothing
NOTHING_ASKED = "Nothing was asked; ask when you like."
_ASKING = r"(?:what|why|how|when|where|which|who|does|do|did|is|are|was|can|could|should|will|would)\b"
_FOLLOW_UP = re.compile(
    r"(?:(?:and|but|so|ok(?:ay)?|then)\b[\s,]*)?(?:what|how)\s+about\s+(?P<about>.*\w.*?)[\s?]*$"
    rf"|(?:and|but)\s+(?!{_ASKING})(?P<and>.*\w.*?)[\s?]*$",
    re.I,
)
# What is taken for a name: two capitals or digits (DPO, nDCG, BM25), capitalised words inside a sentence
# (Milvus, Bradley-Terry), and lower-case consonants that no English word is made of (dpo, grpo, hnsw).
_WORD = r"(?:[A-Z]['’])?[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ]+"  # O'Brien, too
_NAME = re.compile(
    r"(?<!\w)(?:(?=\w*[A-Za-z])\w*[A-Z0-9]\w*[A-Z0-9]\w*(?:-\w+)*"
    rf"|(?<=[\w,(] ){_WORD}(?:[- ](?:[A-Z]['’])?[A-ZÀ-ÖØ-Þ]\w+)*|{_WORD}(?:-{_WORD})+"
    r"|(?!(?:the|who|she|two|pro|why)\b)(?=\w{3})[b-df-hj-np-tv-xz]{2,5}[aeiou]?)(?!\w)"
)
_SHORT = re.compile(r"(?!(?:it|me|us|you|all|now|one)$)[a-z]{2,3}")  # after "what about" a name: rag
_PREPOSITION = re.compile(r"(?:for|in|with|of|on|to|by|at|from|under|after|before)\s+", re.I)
# "Corinth?" alone is a name; "Examples?" asks for something of what was asked about.
_ALONE = re.compile(
    r"(?!(?:why|how|when|where|who|which|what|really|seriously|since|more|any|all|always|sure|true|examples?|"
    r"alternatives?|details?|reasons?|exceptions?|limits?|defaults?|costs?|prices?|sources?|numbers|options)\b)"
    r"(?P<alone>\w[\w-]+(?: \w[\w-]+)?)\s*\?+",
    re.I,
)
# "is it possible to …", "does it matter whether …": this "it" stands for what follows.
_IMPERSONAL = re.compile(
    r"\bit(?:\s+(?:be|ever|still|really|always|also))?\s+"
    r"(?:(?:(?:not|more|very|too|a good idea|(?:im)?possible|necessary|true|ok(?:ay)?|safe|hard|easy|"
    r"easier|difficult|better|best|enough|normal|common|usual|important|recommended|required|allowed|legal|useful|sensible|"
    r"reasonable|wise|likely|bad|good|sense|make|makes|takes?|long|cost|much|help|pay)\s+)+"
    r"(?:for\s+\S+(?:\s+\S+)?\s+)?(?:to|that|if|when|whether)\b"
    r"|worth\s+\w+ing\b|(?:matter|depend|hurt|harm)s?\s+(?:if|when|whether|what|which|how|to|on)\b|that\b)"
    r"|\btime is it\b",
    re.I,
)
_POINTS_BACK = re.compile(r"\b(?:its?|they|them|theirs?|he|she|him|his|hers?)\b", re.I)
_POINTS_NEAR = re.compile(
    r"\b(?:this|that|these|those|ones?|others?|another|else|instead|same|both|latter|former|there(?=\W*$)"
    r"|(?:more|then)(?=\W*$)|which (?:is|are|was|should|would|do|does)"
    r"|how many (?:do|should|would|can|must) (?:i|we|you) \w+(?=\W*$))\b",
    re.I,
)
# "What is a reward model?" names what "it" and "one" mean in the next question.
_DEFINITION = re.compile(r"\W*what(?:'s|\s+is)\s+(?P<term>(?P<an>an?\s+)?\w[\w–-]*(?:\s+[\w–-]+){0,3})", re.I)
_LEAD = re.compile(r"(?:(?:and|but|so|ok(?:ay)?|then)\b[\s,]*)+", re.I)
_SMALL_TALK = re.compile(
    r"\W*(?:(?:thank (?:you|u)|thanks?|thx|thanx|ty|tysm|cheers|merci|danke|gracias|grazie|"
    r"yes|yeah|yep|no|nope|sure|agreed|exactly|noted|all ?right|you too|you're welcome|no problem|"
    r"hello|hi|hey|(?:good )?(?:morning|afternoon|evening|night|day|bye)|goodbye|bye|see you|"
    r"kk?|ok(?:ay)?|oh|ah|hm+|wow|lol|haha+|well|great|cool|nice|perfect|good|fine|super|awesome|wonderful|excellent|brilliant|"
    r"amazing|lovely|interesting|got it|i see|i understand|understood|right|never ?mind|nvm|sorry|please|"
    r"that helps|(?:that |it )?makes sense|(?:(?:that|it) )?work(?:s|ed)|(?:that|it) did it|that was it|"
    r"(?:that |it )?(?:solve[sd]|fixe[sd]|answer(?:s|ed)) (?:it|that|(?:my|the) (?:question|problem))|"
    r"appreciated?(?: (?:it|that))?|sounds good|will do|fair enough|good to know|"
    r"that(?:'s| is| was)|very|much|so|kindly|a (?:lot|million|ton)|many|all|again|there|then|now|"
    r"for now|later|tomorrow|helpful|mate|for (?:the|your|all your) (?:help|answer|time))(?:\b[^\w?]*|$))+",
    re.I,
)
# "know her?", "need it?": the object at the end is not the subject that the question names.
_OBJECT = re.compile(r"\b(?:him|her|them|it)\W*$", re.I)
# "Was Babbage her teacher?": nobody is said to be his own, so "her" is who was asked about before.
_POSSESSED = re.compile(
    rf"\b(?:[Ii]s|[Aa]re|[Ww]as|[Ww]ere)\s+{_NAME.pattern}\s+(?:his|her|their|its)\s+(?!own\b)\w"
)
_CLAUSE = re.compile(r"\b(?:and|or|who|that|which|if|when|because|while)\b|[,;]", re.I)


def asks_nothing(query: str) -> bool:
    """Whether `query` is thanks, a greeting or assent alone ("ok, thanks!", 👍): nothing to look up."""
    bare = not re.search(r"[\w?？؟]", query)
    short = len(query) <= MOST_TALK  # "good morning" can be read in two ways, and so often often
    return bare or (short and bool(_SMALL_TALK.fullmatch(query.strip().replace("’", "'"))))


def complete_follow_up(query: str, previous: str | None) -> str:
    """`query` made a question on its own with the help of the question before it.

    "and what about IPO?" after "What does beta control in DPO?" becomes "What does beta control in IPO?":
    the new name takes the place of the old one; of several, of that behind the same preposition, or else of
    that which ends most like it ("in London and Rome" counts as one). "and why would I use it?" after "What
    is DPO?" becomes "why would I use DPO?". Where no name can be replaced, or the
    question only points back ("why does it work?", "where did she study?"), the earlier question is put in
    front. A question that stands alone stays as it is, but for thanks before it, and so does what asks
    nothing. These are rules of thumb, for English; the chat shows what they made.
    """
    if not previous or len(previous) > LONGEST or asks_nothing(query):
        return query
    thanks = _SMALL_TALK.match(query)
    if thanks and re.search(r"[^\w\s]\s*$", thanks[0]):
        query = query[thanks.end() :]
    first = previous.split("?")[0].rstrip(" .!\n")  # of one completed before: so that none grows and grows
    found = _FOLLOW_UP.match(query.strip())
    name = _NAME.search(query)
    alone = _ALONE.fullmatch(query.strip())
    if alone and not (alone[1].istitle() or _NAME.fullmatch(alone[1])):
        alone = None
    if found or alone:
        about = alone[1] if alone else found["about"] or found["and"]
        word = _PREPOSITION.match(about)
        new = about[word.end() :] if word else about
        old = _replaceable(previous, new, word and word[0].strip())
        if not (old and (name or alone or _SHORT.fullmatch(new))):
            old = _same_place(first, word and word[0].strip(), new, bool(alone))
        if old and len(new.split()) <= 4 and not _POINTS_BACK.fullmatch(new):
            rest = previous[old[1] :]
            if re.match(r"['’]s\b", rest):  # "Ada's program?", "and Babbage's?"
                new = re.sub(r"['’]s$", "", new)
            return previous[: old[0]] + new + rest
        return f"{first}: {about}?"
    words = len(re.findall(r"\w+", query))
    own = _IMPERSONAL.sub(lambda match: "_" * len(match[0]), query)
    back = _POINTS_BACK.search(own) if words <= 10 else None
    back = back or (_POINTS_NEAR.search(own) if words <= 6 else None)
    if back and (asked := _DEFINITION.fullmatch(first.replace("’", "'"))):
        word = r"\b(?:it|one(?=\W*$))\b" if asked["an"] else r"\bit\b"
        meant = re.search(word, own)
        if meant:
            query = query[: meant.start()] + asked["term"] + query[meant.end() :]
            return _LEAD.sub("", query, count=1) if _LEAD.match(query) else query
    last = _OBJECT.search(own)
    object_last = back and name and last and not _CLAUSE.search(query, name.end(), last.start())
    before = back and (not name or back.start() < name.start())
    possessed = back and _POSSESSED.search(query)
    if (words <= 2 and not name) or before or object_last or possessed:
        return f"{first}? {query}"
    return query


def _replaceable(previous: str, new: str, preposition: str | None) -> tuple[int, int] | None:
    """Where in `previous` the name stands whose place `new` takes; behind a preposition, names listed
    together count as one."""
    spans: list[tuple[int, int]] = []
    for match in _NAME.finditer(previous):
        listed = (
            preposition
            and spans
            and re.fullmatch(r",?\s*(?:and|or|,|&)\s+", previous[spans[-1][1] : match.start()])
        )
        spans.append((spans.pop()[0] if listed else match.start(), match.end()))
    if preposition:
        behind = [s for s in spans if re.search(rf"\b{preposition}\s+(?:the\s+)?$", previous[: s[0]], re.I)]
        if len(behind) > 1:
            return None  # two places, and no way to tell which is meant
        spans = behind or spans
    return max(spans, key=lambda s: (_shared_ending(previous[s[0] : s[1]], new), s[0]), default=None)


def _same_place(previous: str, preposition: str | None, new: str, alone: bool) -> tuple[int, int] | None:
    """Where what is no name stands: behind the same preposition, or last with the same article; what is named
    alone takes the place of what stands last behind a preposition."""
    if preposition or alone:
        wanted = preposition or _PREPOSITION.pattern.removesuffix(r"\s+")
        places = re.finditer(
            rf"\b{wanted}\s+((?:\w[\w-]*\s*){{1,3}}?)(?=$|\b{_PREPOSITION.pattern})", previous, re.I
        )
    else:
        article = re.match(r"an?\b|the\b", new, re.I)
        wanted = article and ("the" if article[0].lower() == "the" else "an?")
        places = re.finditer(rf"\b({wanted}(?:\s+\w[\w-]*){{1,3}})$", previous, re.I) if wanted else ()
    spans = [match.span(1) for match in places if not _NAME.search(previous, *match.span(1))]
    if alone:
        return next((span for span in spans if span[1] == len(previous)), None)
    return spans[0] if len(spans) == 1 else None


def _shared_ending(a: str, b: str) -> int:
    pairs = zip(reversed(a.lower()), reversed(b.lower()))
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
