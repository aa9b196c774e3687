"""Texts as rows of tokens: cut into windows, put into batches, and pooled."""

from bisect import bisect_left


def token_rows(tokenizer, window: int, *texts: list[str]) -> tuple[list[dict[str, list[int]]], list[int]]:
    """Token ids (and types) of texts, or of pairs of them, and which rows had to be cut to `window` tokens.

    Special tokens are included; of a pair, the second is cut. A tokenizer keeps the truncation that a call
    sets, for other threads too: so none is ever set, and the rows are cut here.
    """
    found = tokenizer(*texts, truncation=False, padding=False, return_attention_mask=False, verbose=False)
    rows, cut = [], []
    for n in range(len(texts[0])):
        row = {name: found[name][n] for name in found}
        if (over := len(row["input_ids"]) - window) > 0:
            sources = found.sequence_ids(n)  # None for special tokens
            end = len(sources) - sources[::-1].index(len(texts) - 1)
            row = {name: values[: end - over] + values[end:] for name, values in row.items()}
            cut.append(n)
        rows.append(row)
    return rows, cut


def batches(lengths: list[int], most: int) -> list[list[int]]:
    """Indices, longest texts first, in batches of at most `most` tokens after padding, or of one text."""
    found: list[list[int]] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not found or (len(found[-1]) + 1) * width > most:
            found.append([])
            width = lengths[index]  # the first of a batch is its longest
        found[-1].append(index)
    return found


def windows_of(
    size: int, sentences: list[tuple[int, int]], room: int
) -> list[tuple[int, int, list[tuple[int, int, int]]]]:
    """(begin, end, sentences) of the windows, of at most `room` tokens, that cover `size` of them.

    A window begins with the sentence that the one before has cut, unless that one began with it. Of each
    sentence, (its number, where its tokens begin, and end) in the window that it is pooled in.
    """
    found = []
    begin = at = 0
    while True:
        end = next_begin = min(begin + room, size)
        cut = bisect_left(sentences, (end, 0)) - 1  # the last one that begins before the end
        if end < size and cut >= 0 and begin < sentences[cut][0] and end < sentences[cut][1]:
            next_begin = sentences[cut][0]
        inside = []
        while at < len(sentences) and sentences[at][0] < next_begin:
            start, stop = sentences[at]
            inside.append((at, max(start, begin), min(stop, next_begin)))
            if stop > next_begin:
                break  # it goes on in the next window
            at += 1
        found.append((begin, end, inside))
        if end == size:
            return found
        begin = next_begin


def pool(states, mask, how: str):
    """(B, D) from the last layer's states, (B, T, D): the first token's, or the mean where `mask` is 1."""
    if how == "cls":
        return states[:, 0]
    weights = mask[..., None].to(states.dtype)  # (B, T, 1)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
