"""Splitting texts without losing any of them, and reading Markdown of every dialect."""

import re
from itertools import chain, pairwise

import pytest

from ragkit.retrieval.markdown import plain_markdown
from ragkit.retrieval.pieces import split_text
from ragkit.retrieval.text import sentences_with_sections, split_sentences, words


def sentences(number: int) -> str:
    return " ".join(f"Sentence {n} says what a library holds." for n in range(number))


# --- splitting


def covers(text: str, pieces: list[str]) -> bool:
    """Whether the pieces stand in `text` in order, with nothing but space left outside them."""
    ends = {-1: 0}  # where the last piece may begin: where it then ends
    for piece in pieces:
        following = {}
        for start, end in ends.items():
            place = text.find(piece, start + 1)
            while place >= 0 and not text[end:place].strip():
                following[place] = place + len(piece)
                place = text.find(piece, place + 1)
        ends = following
    return any(not text[end:].strip() for end in ends.values())


def test_covers_sees_a_gap_and_a_wrong_order():
    assert covers("a b c", ["a b", "b c"]) and covers(" ", [])
    assert not covers("a b c", ["a", "c"]) and not covers("a b", ["b", "a"]) and not covers("a b", ["a"])


def weird_texts(st):
    parts = st.sampled_from(
        [" ", " ", " ", "\n", "\n\n", "word", "Word", "nDCG", "β", ". ", "? ", "e.g. ", "1.5", "```", "- "]
        + ["\n# head\n", "\n- ", "[SEP]", "漢字", "😀", "e\u0301", "\u200b", "\u2028", "\x1c", "½", "٣", "'"]
        + ["antidisestablishmentarianism", "a1b2c3d4" * 20, "https://x.y/?q=%20&r=1"]
    )  # fmt: skip
    return st.lists(parts, max_size=60).map("".join) | st.text(max_size=80)


def for_weird_texts(check, **more):
    hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis: pip install -e .[oracles]")
    st = hypothesis.strategies
    settings = hypothesis.settings(max_examples=200, deadline=None, derandomize=True, database=None)
    more = {name: getattr(st, kind)(*bounds) for name, (kind, *bounds) in more.items()}
    settings(hypothesis.given(text=weird_texts(st), **more)(check))()


def test_pieces_fit_and_together_hold_the_whole_text(tokenizer, count):
    def check(text, window, overlap):
        pieces = split_text(text, tokenizer, max_tokens=window, overlap=min(overlap, window - 3))
        assert all(count(piece) <= window for piece in pieces)
        assert all(piece == piece.strip() != "" for piece in pieces)
        assert covers(text, pieces)

    for_weird_texts(check, window=("integers", 4, 40), overlap=("integers", 0, 20))


def test_pieces_fit_where_the_space_before_a_word_is_part_of_its_token():
    """As in RoBERTa's and GPT's tokens: at the start of a piece, a word can come to more tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    merges = [("Ġ", "C"), ("ĠC", "a"), ("ĠCa", "t")]  # Ġ is a space: " Cat" is one token, "Cat" is three
    tokens = [*pre_tokenizers.ByteLevel.alphabet(), *(a + b for a, b in merges)]
    words = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    assert [len(tokenizer.tokenize(text)) for text in ("Cat", " Cat")] == [3, 1]
    text = "Cat Cat Cat. " * 20
    for window in range(8, 40):
        pieces = split_text(text, tokenizer, max_tokens=window, overlap=0)
        assert all(len(tokenizer(piece)["input_ids"]) <= window for piece in pieces) and covers(text, pieces)
    # An emoji is four tokens that begin at one letter: no window smaller than that can hold it, but it ends.
    assert split_text("😀😀", tokenizer, max_tokens=2, overlap=0) == ["😀", "😀"]


def test_a_piece_begins_with_the_last_sentences_of_the_one_before(tokenizer, count):
    text = sentences(60)
    own = count("Sentence 10 says what a library holds.") - 2
    pieces = [split_sentences(p) for p in split_text(text, tokenizer, max_tokens=100, overlap=4 * own + 1)]
    assert len(pieces) > 3
    for before, after in pairwise(pieces):
        assert after[:4] == before[-4:] and after[4] not in before
    none = [split_sentences(p) for p in split_text(text, tokenizer, max_tokens=100, overlap=0)]
    assert [*chain(*none)] == split_sentences(text)


def test_a_long_text_is_made_tokens_in_parts(tokenizer, monkeypatch):
    """And is cut where it was cut: the tokens of a text of 50 MB in one go would fill 8 GB."""
    text = sentences(30) + " word" * 300 + "\n\n" + "1,2;" * 300 + "x" * 500
    whole = split_text(text, tokenizer, max_tokens=50)
    asked = []

    def spy(given, **settings):
        asked.append(len(given))
        return tokenizer(given, **settings)

    spy.num_special_tokens_to_add = tokenizer.num_special_tokens_to_add
    monkeypatch.setattr("ragkit.retrieval.pieces.AT_ONCE", 600)
    assert split_text(text, spy, max_tokens=50) == whole and max(asked) <= 600


def test_a_text_that_fits_is_one_piece_and_an_empty_one_none(tokenizer):
    assert split_text("  One. Two.\n", tokenizer) == ["One. Two."]
    assert split_text(" \n\t ", tokenizer) == split_text("", tokenizer) == []


def test_a_long_sentence_is_cut_between_words(tokenizer):
    pieces = split_text("word " * 500, tokenizer, max_tokens=50)
    assert {word for piece in pieces for word in piece.split()} == {"word"}
    assert [len(piece.split()) for piece in pieces] == [48] * 10 + [20]


def test_what_is_left_of_a_cut_word_fits_too(tokenizer, count):
    """Within the word, "ishmentarian" is one token; alone it is four."""
    pieces = split_text("antidisestablishmentarianism", tokenizer, max_tokens=4, overlap=0)
    assert "".join(pieces) == "antidisestablishmentarianism"
    assert all(count(piece) <= 4 for piece in pieces)


@pytest.mark.parametrize("overlap", [-1, 8, 10])
def test_an_overlap_that_leaves_no_room_is_refused(tokenizer, overlap):
    with pytest.raises(ValueError, match="less than the 8 tokens of one piece"):
        split_text("text", tokenizer, max_tokens=10, overlap=overlap)


# --- sentences


@pytest.mark.parametrize(
    "text, expected",
    [
        ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ("Use it, e.g. BM25, i.e. Words.", ["Use it, e.g. BM25, i.e. Words."]),
        ("Smith et al. Show it. See Fig. 3 vs. Eq. 2.", ["Smith et al. Show it.", "See Fig. 3 vs. Eq. 2."]),
        ("Dr. Who met Mr. X and John F. Kennedy.", ["Dr. Who met Mr. X and John F. Kennedy."]),
        ("k1 = 1.5 and b = 0.75. Then 2.", ["k1 = 1.5 and b = 0.75.", "Then 2."]),
        ("A measure. nDCG is one. eBay is none.", ["A measure.", "nDCG is one.", "eBay is none."]),
        ("It stops. 3 are left. β is small.", ["It stops.", "3 are left.", "β is small."]),
        ("version 2.0 of x.y.z was out. it went on", ["version 2.0 of x.y.z was out. it went on"]),
        ('He said "Go." He (really!) went. “Yes.”', ['He said "Go."', "He (really!) went.", "“Yes.”"]),
        ("a line\nthat goes on. Next\tone.", ["a line that goes on.", "Next one."]),
        ("no full stop\n\nnext paragraph", ["no full stop", "next paragraph"]),
        ("# Heading. With a stop\ntext", ["# Heading. With a stop", "text"]),
        ("items:\n- a\n- two\n  on\n2) three\n* four", ["items:", "- a", "- two on", "2) three", "* four"]),
        ("Run:\n```py\na = 1.  \nB. C\n```\nDone.", ["Run:", "```py\na = 1.  \nB. C\n```", "Done."]),
        ("A fence (```) is none. Here ```too.", ["A fence (```) is none.", "Here ```too."]),
        ("open\n```code. Never Closed", ["open", "```code. Never Closed"]),
        ("1. Unplug it. Then wait.\n2. Go.", ["1. Unplug it.", "Then wait.", "2. Go."]),
        ("~~~~\n~~~\na. B\n~~~~\nC. D", ["~~~~\n~~~\na. B\n~~~~", "C.", "D"]),
        ("这是。真的吗？「是。」他说。完", ["这是。", "真的吗？", "「是。」他说。", "完"]),
        ("यह है। वह है। ما هذا؟ هذا.", ["यह है।", "वह है।", "ما هذا؟", "هذا."]),
        ("", []),
        (" \n \n", []),
    ],
)  # fmt: skip
def test_sentences(text, expected):
    assert split_sentences(text) == expected


def test_sentences_never_lose_a_letter():
    def check(text):
        assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())

    for_weird_texts(check)


# --- words


@pytest.mark.parametrize(
    "written, sought",
    [
        ("İstanbul", "istanbul"), ("Isparta", "ısparta"), ("Kom\u00admunikation", "kommunikation"),
        ("كِتَاب", "كتاب"), ("כִּתָב", "כתב"), ("مـحمد", "محمد"), ("می\u200cخواهم", "میخواهم"),
        ("_key_", "key"), ("__init__", "init"), ("m\u0303a", "ma"),
    ],
)  # fmt: skip
def test_what_one_may_write_in_two_ways_is_one_word(written, sought):
    assert words(written) == words(sought) != []


def test_words_keep_the_vowels_that_are_marks():
    assert words("हिन्दी में தமிழ்") == ["हिन्दी", "में", "தமிழ்"]
    assert words("ภาษาไทย")[:2] == words("ภาษา")[:2] == ["ภา", "าษ"] and words("น้ำ") == words("น้ำ") != []
    assert words("人々") == ["人々"] and words("𠮷野家") == ["𠮷野", "野家"]
    assert words("snake_case _a b_ ___ s_{i}") == ["snake_case", "_a", "b_", "___", "s_"]


# --- Markdown

MARKDOWN = [
    # what stands between < and >, entities, escapes
    ("if a<b, c and d>4 or `x<y>`", "if a<b, c and d>4 or `x<y>`"),
    ("Vec<T>, Map<Key, Value>, $x<y$ and $z>0$", "Vec<T>, Map<Key, Value>, $x<y$ and $z>0$"),
    ("git clone <address> <your name here>", "git clone <address> <your name here>"),
    ("std::vector<std::string>, <host:port>, [^a-z]", "std::vector<std::string>, <host:port>, [^a-z]"),
    ("$5 and $10, 5\\$. $\\alpha_{\\\\x}$", "$5 and $10, 5$. $\\alpha_{\\\\x}$"),
    ("<https://x.org/a_b_c> or <me@x.org>", "https://x.org/a_b_c or me@x.org"),
    ("<b>bold</b><br/>new <span class='x'>words</span>", "bold new words"),
    ('<Tabs>\n<TabItem value="a" label="Mac">\n\nText.\n\n</TabItem>\n</Tabs>', "Mac\n\nText."),
    ("<Tip\n  warning={true}\n>\nBeware.\n</Tip>", "Beware."),
    ("Tom &amp; Jerry &lt;b&gt; &#947;&nbsp;AT&T &copy", "Tom & Jerry <b> γ AT&T &copy"),
    (r"\*not\* 2\_3 \<b> \# C:\dir", r"*not* 2_3 <b> # C:\dir"),
    (r"\# no heading", r"\# no heading"),
    ("**bold**, __so__, *it* and _it_, ~~old~~ ==new==", "bold, so, it and it, old new"),
    ("2**3 and 4**5, a__b__c, snake_case_name, 2 * 3 * 4",
     "2**3 and 4**5, a__b__c, snake_case_name, 2 * 3 * 4"),
    ("这是**重点**内容", "这是重点内容"),
    ("**Log*Event** and **g**lobal", "Log*Event and global"),
    ("two stars ** apart\n\nare ** no bold", "two stars ** apart\n\nare ** no bold"),
    # links
    ("[a [b] c](d(e) 'f') ![g](h) [![i](j)](k) [l][m] [n] o[0]\n\n[m]: p\n[n]: <q> 'r'", "a [b] c l n o[0]"),
    ("[[a/b c|d]], [[e#f]], [[#g]], ![[h.png]] ![[i]]", "d, e > f, g, i"),
    ("Words[^1] here.\n\n[^1]: The note.\n    It goes on.\n\n    And on.",
     "Words here.\n\nThe note. It goes on.\n\nAnd on."),
    # what goes
    ("a <!-- b --> c\n<!--\nd\n\ne --> f\n\n%% g %%\n\n{/* h */}", "a c f"),
    ("`<!--` stays, and 5 %% of 10 %%.\n\n<!-- never closed",
     "`<!--` stays, and 5 %% of 10 %%.\n\n<!-- never closed"),
    ("{{< tabs >}}\n{{#include x.md}}\na {{% b %}} c {% d %} e {{ f }}", "a c e {{ f }}"),
    ("## A *b* {#c .d}\n\ne{: .f }\n\ng ^h1", "## A b\n\ne\n\ng"),
    ("import X from '@y'\n\nimport is a word.\n\nexport const a = {\n  b: 1,\n}\n\nText.",
     "import is a word.\n\nText."),
    ("<script>\nx < 1\n\ny\n</script>\n\nText.", "Text."),
    # headings and rules
    ("Two words\n---\n\ntext.\n---\n\n***\n\n#tag\n\n### C# ###", "## Two words\n\ntext.\n\n#tag\n\n### C#"),
    # fences and their kin
    ("~~~ sh title=x\n**a**\n```\n~~~", "````sh\n**a**\n```\n````"),
    ("````md\n```\na\n```\n````", "````md\n```\na\n```\n````"),
    ("1. Do:\n\n   ```{.py .x}\n     a\n\n   b\n   ```\n2. on", "1. Do:\n\n```py\n  a\n\nb\n```\n\n2. on"),
    ("> ```\n> a > b\n> ```\n> words\nlazy\n\n>> deep", "```\na > b\n```\n\nwords lazy\n\ndeep"),
    ("```\na\n~~~\n# b", "```\na\n~~~\n# b\n```"),
    ("<pre><code>a &lt; <b>b</b>\n\n  c</code></pre>", "```\na < b\n\n  c\n```"),
    ("para\n    on\n\n    code\n\n\ttoo\n\nafter", "para on\n\n```\ncode\n\ntoo\n```\n\nafter"),
    ("- item\n\n      code\n\n  para", "- item\n\n```\ncode\n```\n\n  para"),
    ("{% highlight sh %}\na *b*\n{% endhighlight %}\n\n{{< highlight go >}}\nc\n\nd\n{{< /highlight >}}",
     "```sh\na *b*\n```\n\n```go\nc\n\nd\n```"),
    # bodies that are prose
    ('!!! note "So"\n    a\n\n    b\n??? tip\n    c\n\nd', "So\n\na\n\nb\n\nc\n\nd"),
    ('=== "Mac"\n\n    a\n\n    ```sh\n    b\n    ```\n\n=== "Win"\n\n    c',
     "Mac:\n\na\n\n```sh\nb\n```\n\nWin:\n\nc"),
    ("```{note} Mind\n:class: x\n\na\n```\n\n````{tip}\n```{code-block} py\nb\n```\n````",
     "Mind\n\na\n\n```py\nb\n```"),
    (":::tip[Mind] \na\n:::\n\n::: {.x}\nb\n:::\n\n:::warning\nc\n:::", "Mind\n\na\n\nb\n\nc"),
    ("/// note | Mind\n\na\n\n///", "Mind\n\na"),
    ("> [!NOTE]\n> a\n\n> [!tip]- Mind\n> b", "a\n\nMind\n\nb"),
    ("See {ref}`the way <x>` and {doc}`y`.\n\n(x)=\n\nTerm\n: Meaning",
     "See the way and y.\n\nTerm: Meaning"),
    # lists and tables
    ("in\n1986. So\n- a\n  b\n* c\n\n  d\n  - [ ] e  \n    f",
     "in 1986. So\n\n- a b\n* c\n\n  d\n\n  - [ ] e\n  f"),
    # a fence ends where its mark is no further in than code is
    ('```py\n"""\n    ```\n    x\n    ```\n"""\n```\n\nSo.',
     '````py\n"""\n    ```\n    x\n    ```\n"""\n````\n\nSo.'),
    ("```a``` is code.", "```a``` is code."),
    ('!!!note "The "big" one"\n    a\n\n??? "So"\n    b', 'The "big" one\n\na\n\nSo\n\nb'),
    ("Why?\n----\n\nSo.", "## Why?\n\nSo."),
    ("```{versionadded} 2.0\n```", "Added in version 2.0."),
    ("[[a#^b1]], [[c#d#e]], ![[f.avif]] x[[1]], [[ -f g ]]", "a, c > d > e, x[[1]], [[ -f g ]]"),
    ("+---+----+\n| A | B  |\n+===+====+\n| c | d  |\n|   |\\*e |\n+---+----+\n\nf",
     "| A | B |\n| --- | --- |\n| c | d *e |\n\nf"),
    ("+---+\n| a | b\n+---+", "+---+ | a | b +---+"),
    ("<table>\n<tr><th>A</th>\n<th>B</th></tr>\n<tr><td>`c|d`</td><td>**e**\nf</td></tr>\n</table>\n\ng",
     "| A | B |\n| --- | --- |\n| `c\\|d` | e f |\n\ng"),
    ("<table><tr><td>a</td><td>b</td></tr></table>\n\n<table>\n<tr><th>c</th></tr>\nd\n</table>",
     "a b\n\nc d"),
    ("<h2 id=x>\n  A <b>b</b>\n</h2>\n\nc\n\n<h3>\n\nd\n\n</h3>", "## A b\n\nc\n\nd"),
    ("A|B\n:-|-\n`a\\|b`|**c**\n\nd | e", "| A | B |\n| --- | --- |\n| `a\\|b` | c |\n\nd | e"),
]  # fmt: skip


@pytest.mark.parametrize("source, plain", MARKDOWN)
def test_markdown_is_read_as_what_it_means(source, plain):
    assert plain_markdown(source) == ("", plain)


def test_mdx_has_no_indented_code():
    assert plain_markdown("<Steps>\n\n    A step.\n\n</Steps>", indented_code=False) == ("", "A step.")


def test_a_lone_mark_takes_no_word():
    """One kind of mark before each word, and nothing that would close it: all words stay."""

    def check(mark, runs):
        source = "w0 " + " ".join(f"{mark * run} w{n}" for n, run in enumerate(runs, 1))
        assert re.findall(r"w\d+", " ".join(plain_markdown(source))) == re.findall(r"w\d+", source)

    hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis: pip install -e .[oracles]")
    st = hypothesis.strategies
    marks, runs = st.sampled_from("<>[](){}#*_=|:-!&;.\\/\"'^+"), st.lists(st.integers(1, 4), max_size=8)
    settings = hypothesis.settings(max_examples=300, deadline=None, derandomize=True, database=None)
    settings(hypothesis.given(marks, runs)(check))()


LONG = [
    "<table>\n",
    "<h1>\n\n",
    "+-+\n",
    "<table><tr><th>a\n",
    "> ",
    "[",
    "](",
    "[a](",
    "<",
    "<a ",
    '<a b="',
    "<!-- ",
    "**a ",
    "*a **b ",
    "_a",
    "`a",
    "%% a ",
    "{{< a ",
]
LONG += [
    "|",
    "- ",
    "# a #",
    "&a",
    "$a ",
    "{#a ",
    "[[a|",
    "<a b={",
    "\\\\",
    "=",
    "[^a]: b\n",
    "```{note}\n",
    "1. a\n",
    "    ",
]


@pytest.mark.parametrize("mark", LONG)
def test_deep_nesting_and_long_lines_are_read(mark):
    """In time that grows with their length: with its square, each of these would take minutes."""
    assert "word" in plain_markdown(mark * 50_000 + "word")[1]


# --- what can be quoted


@pytest.mark.parametrize(
    "text, expected",
    [
        ("## A\n\nOne. Two.\n\n### B\n\nThree.\n\n## C\n\nFour.",
         [("One.", "A"), ("Two.", "A"), ("Three.", "A > B"), ("Four.", "C")]),
        ("You need:\n\n- a\n- b\n\nNot this.", [("You need: - a - b", ""), ("Not this.", "")]),
        ("Run:\n\n```sh\ngo  now\n```\n\n```\nnot quoted\n```", [("Run:\n```sh\ngo  now\n```", "")]),
        ("1. Unplug. Wait.\n2. Plug in:\n\n```\nx\n```\n\n3. Go.\n\nEnd.",
         [("1. Unplug. Wait. 2. Plug in:\n```\nx\n```\n3. Go.", ""), ("End.", "")]),
        ("# C# ##\n\nOne.\n\n## ##\n\nTwo.", [("One.", "C#"), ("Two.", "C# > ")]),
        ("- a\n- b. C", [("- a", ""), ("- b.", ""), ("C", "")]),
        ("Ports:\n\n| Name | Port | |\n| --- | --- | --- |\n| web | 80 | x\\|y |\n| db | | |",
         [("Ports:", ""), ("Name: web; Port: 80; x|y", ""), ("Name: db", "")]),
    ],
)  # fmt: skip
def test_what_can_be_quoted_knows_its_section(text, expected):
    assert sentences_with_sections(text) == expected


def test_a_long_list_is_quoted_in_runs_that_keep_their_lead():
    found = sentences_with_sections("Do:\n\n" + "\n".join(f"{n}. {'word ' * 30}" for n in range(1, 11)))
    assert len(found) > 2 and all(words.startswith("Do: ") and len(words) <= 600 for words, _ in found)
    assert [int(word[:-1]) for words, _ in found for word in words.split() if word[:-1].isdigit()] == [
        *range(1, 11)
    ]
