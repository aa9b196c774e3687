"""An order with ties, and what a person does to it: move a document, tie it, give it a place.

An order is a list of tiers, best first; a tier is a list of documents (any values) that tie. A slot is a
place on the screen, from 0, when all tiers are read one after the other. Functions return new lists, and
raise IndexError for a slot that is not there.
"""

Tiers = list[list[int]]


def flat(tiers: Tiers) -> list[int]:
    """The document in each slot."""
    return [document for tier in tiers for document in tier]


def places(tiers: Tiers) -> list[int]:
    """The place of the document in each slot, from 1; those that tie share one: 1, 2, 2, 4."""
    found = []
    for tier in tiers:
        found += [len(found) + 1] * len(tier)
    return found


def move(tiers: Tiers, slot: int, by: int) -> Tiers:
    """The document in `slot` goes up (by < 0) or down, a step at a time; at the end it stays.

    A step takes it out of its tie, or else past all of the next tier: each step changes what the order says.
    """
    tier, document = _find(tiers, slot)
    tiers = [list(each) for each in tiers]
    for _ in range(abs(by)):
        step = 1 if by > 0 else -1
        if len(tiers[tier]) > 1:
            tiers[tier].remove(document)
            tier += by > 0
            tiers.insert(tier, [document])
        elif 0 <= tier + step < len(tiers):
            tiers[tier], tiers[tier + step] = tiers[tier + step], tiers[tier]
            tier += step
    return tiers


def place(tiers: Tiers, slot: int, target: int) -> Tiers:
    """The document in `slot` gets the slot `target`, alone in its tier; the others keep their order and ties.

    A tie that it would stand in the middle of is cut in two.
    """
    (_, document), _ = _find(tiers, slot), _find(tiers, target)
    rest = [[d for d in each if d != document] for each in tiers]
    rest = [each for each in rest if each]
    above: Tiers = []
    room = target
    while rest and len(rest[0]) <= room:
        room -= len(rest[0])
        above.append(rest.pop(0))
    if room:  # the target lies within a tie
        above.append(rest[0][:room])
        rest[0] = rest[0][room:]
    return [*above, [document], *rest]


def tie(tiers: Tiers, slot: int) -> Tiers:
    """Tie the document in `slot` with the one above it, or cut that tie. In the first slot: no change."""
    tier, document = _find(tiers, slot)
    tiers = [list(each) for each in tiers]
    cut = tiers[tier].index(document)
    if cut:
        tiers[tier : tier + 1] = [tiers[tier][:cut], tiers[tier][cut:]]
    elif tier:
        tiers[tier - 1 : tier + 1] = [tiers[tier - 1] + tiers[tier]]
    return tiers


def is_tied(tiers: Tiers, slot: int) -> bool:
    """Whether the document in `slot` ties with the one above it."""
    tier, document = _find(tiers, slot)
    return tiers[tier][0] != document


def _find(tiers: Tiers, slot: int) -> tuple[int, int]:
    """The tier that holds `slot`, and the document in it."""
    documents = [(tier, document) for tier, each in enumerate(tiers) for document in each]
    if not 0 <= slot < len(documents):
        raise IndexError(f"slot {slot} of {len(documents)}, counted from 0")
    return documents[slot]
