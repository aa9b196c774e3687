"""What other people's files say: each format as a small written example, one call, and what is refused."""

import gzip
import json
import math

import numpy as np
import pytest
import torch

from ragkit.losses.strengths import reward_gap
from ragkit.preferences.export import labels_of, to_argilla, to_label_studio, to_trl
from ragkit.preferences.formats import from_signed_scores, from_trl, read_judgements
from ragkit.preferences.judgements import Comparison, Feedback, Ranking
from ragkit.preferences.log import PreferenceLog
from ragkit.preferences.pairs import Pairs, pairs_of
from ragkit.retrieval.corpus import Passage


def user(text):
    return {"role": "user", "content": text}


def model(text):
    return {"role": "assistant", "content": text}


def studio(result, **settings):
    data = {"prompt": "q", "answer1": "a", "answer2": "b"}
    return {"data": data, "annotations": [{"completed_by": 7, "result": result} | settings]}


CHOSEN = {  # each says: asked q, a is better than b
    "TRL": {"prompt": "q", "chosen": "a", "rejected": "b"},
    "messages apart": {"prompt": [user("q")], "chosen": [model("a")], "rejected": [model("b")]},
    "messages, implicit prompt": {"chosen": [user("q"), model("a")], "rejected": [user("q"), model("b")]},
    "prompt in all": {"prompt": "q", "chosen": [user("q"), model("a")], "rejected": [user("q"), model("b")]},
    "HH": {
        "chosen": "\n\nHuman: q\n\nAssistant: a",
        "rejected": "\n\nHuman: q\n\nAssistant: b",
        "source": "x",
    },
    "texts, implicit prompt": {"chosen": "q a", "rejected": "q b"},
    "parts": {
        "prompt": "q",
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "a"}]}],
        "rejected": "b",
    },
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": {"from": "gpt", "value": "b"},
    },
    "OpenAI": {
        "input": {"messages": [user("q")], "tools": []},
        "preferred_output": [model("a")],
        "non_preferred_output": [model("b")],
    },
    "Alpaca": {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
    "NeMo-Aligner": {"prompt": "q", "chosen_response": "a", "rejected_response": "b"},
    "NeMo-RL": {
        "context": [user("q")],
        "completions": [{"rank": 1, "completion": [model("b")]}, {"rank": 0, "completion": [model("a")]}],
    },
    "stack-exchange-paired": {"question": "q", "response_j": "a", "response_k": "b", "qid": 3},
    "Nectar": {
        "prompt": "\n\nHuman: q\n\nAssistant: ",
        "answers": [{"answer": "b", "rank": 2.0}, {"answer": "a", "rank": 1.0, "model": "m"}],
    },
    "UltraFeedback": {
        "instruction": "q",
        "completions": [{"response": "b", "overall_score": 4.0}, {"response": "a", "overall_score": 7.5}],
    },
    "parallel lists": {"instruction": "q", "generations": ["b", "a"], "rating": [2.0, 5.0]},
    "HelpSteer3": {"context": [user("q")], "response1": "b", "response2": "a", "overall_preference": 1},
    "HelpSteer2": {"prompt": "q", "response_1": "a", "response_2": "b", "preference_strength": -1},
    "LMSYS": {
        "conversation_a": [user("q"), model("b")],
        "conversation_b": [user("q"), model("a")],
        "winner": "model_b",
    },
    "Label Studio": studio(
        [{"type": "pairwise", "to_name": "answer1,answer2", "value": {"selected": "left"}}]
    ),
    "Argilla 2": {
        "fields": {"prompt": "q", "response-1": "b", "response-2": "a"},
        "responses": {"rank": [{"user_id": "u", "value": ["response-2", "response-1"]}]},
    },
    "Argilla 1": {
        "fields": {"instruction": "q", "response-1": "b", "response-2": "a"},
        "responses": [
            {
                "user_id": "u",
                "status": "submitted",
                "values": {
                    "why": {"value": "it is short"},
                    "rank": {
                        "value": [{"value": "response-2", "rank": 1}, {"value": "response-1", "rank": 2}]
                    },
                },
            }
        ],
    },
    "Argilla, a label": {
        "fields": {"prompt": "q", "response-1": "b", "response-2": "a"},
        "responses": {"better": [{"user_id": "u", "value": "response-2", "status": "submitted"}]},
    },
}


@pytest.mark.parametrize("row", CHOSEN.values(), ids=CHOSEN)
def test_each_format_comes_in_by_one_call(row):
    pairs = from_trl([row])
    assert (pairs.query, pairs.chosen, pairs.rejected, pairs.target.tolist()) == (["q"], ["a"], ["b"], [1.0])


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name, pack", [("x.json", bytes), ("x.json.gz", gzip.compress)])
def test_lines_and_arrays_with_a_mark_or_packed(tmp_path, array, mark, name, pack):
    rows = [CHOSEN["TRL"], CHOSEN["Nectar"]]
    text = json.dumps(rows, indent=1) if array else "\n\n".join(map(json.dumps, rows))
    (tmp_path / name).write_bytes(pack((mark + text).encode()))
    assert from_trl(tmp_path / name).query == ["q", "q"]


def test_columns_of_any_name():
    row = {"ask": "q", "good": "a", "bad": "b", "margin": -9, "note": "", "chosen": 1}
    pairs = from_trl([row], prompt="ask", chosen="good", rejected="bad", margin=None)
    assert (pairs.query, pairs.chosen, pairs.rejected) == (["q"], ["a"], ["b"])
    votes = [{"ask": "q", "left": "a", "right": "b", "who": who} for who in "LR="]
    found = read_judgements(
        votes,
        prompt="ask",
        first="left",
        second="right",
        score="who",
        labels={"L": -2, "R": 1, "=": (0, True)},
    )
    assert [(c.rating, c.both_bad) for c in found] == [(-2, False), (1, False), (0, True)]
    rated = {"prompt": "q", "chosen": "x", "rejected": "y", "generations": ["a", "b"], "stars": [1, 2]}
    assert from_trl([rated], answers="generations", reward="stars").chosen == ["b"]


def test_the_whole_prompt_is_the_query():
    """Two conversations that end in the same words are two; system and history count."""
    first = [{"role": "system", "content": "Cook."}, user("Egg?"), model("Six minutes."), user("Why?")]
    rows = [
        {"prompt": first, "chosen": [model("a")], "rejected": [model("b")]},
        {
            "chosen": [user("Egg?"), model("No."), user("Why?"), model("a")],
            "rejected": [user("Egg?"), model("No."), user("Why?"), model("b")],
        },
        {"instruction": "Why?", "history": [["Egg?", "No."]], "chosen": "a", "rejected": "b"},
        {"system": "Cook.", "question": "Why?", "chosen": "a", "rejected": "b"},
        {"instruction": "Add.", "input": "1, 2", "chosen": "a", "rejected": "b"},
    ]
    pairs = from_trl(rows)
    history = "user: Egg?\nassistant: No.\nuser: Why?"
    whole = "system: Cook.\nuser: Egg?\nassistant: Six minutes.\nuser: Why?"
    assert pairs.query == [whole, history, history, "system: Cook.\nuser: Why?", "Add.\n1, 2"]
    assert pairs.group.tolist() == [0, 1, 1, 2, 3] and set(pairs.chosen) == {"a"}


def test_numbers_of_numpy_are_taken():
    row = CHOSEN["TRL"] | {"margin": np.float32(2), "score_chosen": np.int64(3)}
    assert from_trl([row]).rating.tolist() == [2] and from_trl([row]).chosen_reward.tolist() == [3]
    assert read_judgements([CHOSEN["HelpSteer2"] | {"preference_strength": np.int64(-3)}])[0].rating == -3


def test_scores_are_rewards_and_a_negative_margin_no_strength():
    rows = [
        {
            "prompt": "q",
            "chosen": "a",
            "rejected": "b",
            "score_chosen": 8.5,
            "score_rejected": 3,
            "margin": -1,
        },
        {
            "prompt": "q",
            "chosen": "a",
            "rejected": "b",
            "chosen-rating": 5,
            "rejected-rating": 4,
            "margin": 2.5,
        },
    ]
    pairs = from_trl(rows)
    assert reward_gap()(pairs).tolist() == [5.5, 1.0]
    assert math.isnan(pairs.rating[0]) and pairs.rating[1] == 2.5 and np.isnan(pairs.chosen_position).all()
    assert reward_gap()(from_trl([CHOSEN["UltraFeedback"]])).tolist() == [3.5]


def test_answers_rated_one_a_row_become_one_ranking():
    rows = [
        {"prompt": q, "response": r, "helpfulness": h, "verbosity": 1}
        for q, r, h in ["qa4", "qb4", "qc2", "rd1"]
    ]
    rows = [row | {"helpfulness": int(row["helpfulness"])} for row in rows]
    first, second = read_judgements(rows)
    assert first.tiers == [[0, 1], [2]] and first.details["rewards"] == [4, 4, 2] and second.query == "r"
    assert read_judgements(rows[1:3], reward="verbosity")[0].tiers == [[0, 1]]


def test_several_annotators_ties_and_drafts():
    ranked = [{"value": "response-1", "rank": 1}, {"value": "response-2", "rank": 1}]
    said = [
        {"user_id": who, "value": ranked, "status": status}
        for who, status in [("u", "submitted"), ("v", "draft"), ("w", "discarded"), ("x", "submitted")]
    ]
    row = {"fields": {"prompt": "q", "response-1": "a", "response-2": "b"}, "responses": {"rank": said}}
    assert [(r.annotator, r.tiers) for r in read_judgements([row])] == [("u", [[0, 1]]), ("x", [[0, 1]])]
    left = [{"type": "pairwise", "value": {"selected": "right"}}]
    task = studio(left)
    task["annotations"] += studio(left, was_cancelled=True)["annotations"] + studio([])["annotations"]
    (found,) = read_judgements([task])
    assert (found.rating, found.annotator) == (1, "7")
    items = [{"id": name, "title": name.upper(), "body": f"text {name}"} for name in "xyz"]
    task = {"data": {"query": "q", "items": items}, "annotations": studio([])["annotations"]}
    for order, labels, tiers in [
        ({"rank": ["z", "x", "y"]}, {}, [[2], [0], [1]]),
        ({"good": ["y"], "bad": ["x"], "_": ["z"]}, {"good": 1, "bad": 0}, [[1], [0]]),
    ]:
        task["annotations"][0]["result"] = [{"type": "ranker", "value": {"ranker": order}}]
        (ranking,) = read_judgements([task], labels=labels)
        assert ranking.tiers == tiers and ranking.passages[0] == Passage("x", "text x", "X")


def test_a_retrieved_context_becomes_passages():
    rows = [
        CHOSEN["TRL"] | {"context": context} for context in ("one", ["one"], [{"id": "d", "text": "one"}])
    ]
    rows.append({"prompt": "q", "response_a": "x", "response_b": "y", "winner": "tie", "documents": ["one"]})
    for found in read_judgements(rows):
        (hit,) = found.hits
        assert hit.passage.text == "one" and hit.rank == 1 and found.query == "q"


def test_messages_in_a_tables_text_and_line_ends_of_windows():
    pairs = from_trl(
        [
            {"chosen": json.dumps([user("q"), model("a")]), "rejected": json.dumps([user("q"), model("b")])},
            {
                name: f"\r\n\r\nHuman: q\r\n\r\nAssistant: {text}"
                for name, text in [("chosen", "a"), ("rejected", "b")]
            },
        ]
    )
    assert (pairs.query, pairs.chosen, pairs.rejected) == (["q", "q"], ["a", "a"], ["b", "b"])
    assert from_trl([CHOSEN["TRL"] | {"chosen": '[{"role": "x"'}]).chosen == ['[{"role": "x"']


@pytest.mark.parametrize(
    "vote, rating, bad",
    [("Tie", 0, False), ("Tie (both bad)", 0, True), ("Model B", 1, False), ("m2", 1, False)],
)
def test_votes_of_other_spellings_and_winners_by_name(vote, rating, bad):
    row = {
        "prompt": "q",
        "response_a": "x",
        "response_b": "y",
        "winner": vote,
        "model_a": "m1",
        "model_b": "m2",
    }
    (found,) = read_judgements([row])
    assert (found.rating, found.both_bad) == (rating, bad)


@pytest.mark.parametrize(
    "row, message",
    [
        ({"chosen": "a", "rejected": "b"}, "no 'prompt'; name the column"),
        ({"ask": "q", "chosen": "the a", "rejected": "the b"}, "no 'prompt'; name the column"),
        ({"prompt": "q", "chosen": "a"}, "no 'rejected'; a row has"),
        ({"chosen": [user("p"), model("a")], "rejected": [user("q"), model("b")]}, "no 'prompt'; name"),
        ({"prompt": "q", "response_a": "x", "response_b": "y", "winner": None}, "without a vote .*score=…"),
        ({"prompt": "q", "good": "a", "bad": "b"}, "columns prompt, good, bad: name those"),
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "the same text: 'a'"),
        (
            {"prompt": "q", "chosen": [user("q"), model("a"), user("ta")], "rejected": "b"},
            "a turn of 'user': 'ta'",
        ),
        (
            {
                "prompt": "q",
                "chosen": [{"role": "assistant", "content": [{"type": "image"}]}],
                "rejected": "b",
            },
            "image",
        ),
        (CHOSEN["TRL"] | {"margin": True}, "margin is True, not a finite number"),
        (CHOSEN["TRL"] | {"score_chosen": "8"}, "score_chosen is '8'"),
        ({"prompt": "q", "answers": ["a", "b"]}, "neither ranks nor scores"),
        ({"prompt": "q", "answers": ["a", "a"], "ranks": [1, 2]}, "one text stands at two ranks"),
        (CHOSEN["TRL"] | {"context": [{"url": "x"}]}, "a passage without a text"),
        (
            {"data": {"prompt": "q"}, "annotations": [{"result": [{"type": "ranker"}]}]},
            "not Label Studio's format",
        ),
        ({"prompt": "q", "answers": ["a", "b"], "ranks": [1]}, "1 ranks and 2 scores for 2 answers"),
        ({"prompt": "q", "completion": "a", "label": 1}, r"a thumb of 1: write labels=\{1: …\}"),
        ({"prompt": "q", "answer_a": "x", "answer_b": "y", "winner": True}, r"labels=\{True: -1, False: 1\}"),
        ({"prompt": "q", "answer_a": "x", "answer_b": "y", "winner": "gpt-4"}, r"labels=\{'gpt-4': …\}"),
        ({"prompt": "q", "response_0": "x", "response_1": "y", "better_response_id": 0}, r"labels=\{0: …\}"),
        ({"prompt": "q", "human_ref_A": "x", "human_ref_B": "y", "labels": 1}, r"labels=\{1: …\}"),
        ({"prompt": "q", "response1": "x", "response2": "y", "overall_preference": 0.5}, "rating=0.5"),
        (studio([{"type": "rating", "value": {"rating": 3}}]), "but rating"),
        (
            {"fields": {"p": "q"}, "responses": {"n": [{"user_id": "u", "value": 4}]}},
            "question 'n' is no ranking",
        ),
    ],
)
def test_what_is_unclear_is_refused_by_line(tmp_path, row, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(CHOSEN["TRL"]) + "\n" + json.dumps(row))
    with pytest.raises(ValueError, match=rf"rows\.jsonl, line 2: .*{message}"):
        read_judgements(path)
    problems = []
    assert len(read_judgements(path, problems=problems)) == 1 and "line 2" in problems[0]


def test_scales_are_told_by_their_values_or_by_labels():
    """1 and 2 can mean either side; with a −1 among them the scale is signed."""
    rows = [{"prompt": "q", "a": "x", "b": "y", "s": s} for s in (1, 2)]
    names = {"first": "a", "second": "b", "score": "s"}
    with pytest.raises(ValueError, match=r"labels=\{1: …, 2: …\}"):
        from_signed_scores(rows, **names)
    assert [c.rating for c in from_signed_scores(rows, **names, labels={1: -1, 2: 1})] == [-1, 1]
    assert [c.rating for c in from_signed_scores([*rows, rows[0] | {"s": -1}], **names)] == [1, 2, -1]


def test_thumbs_become_pairs_or_labels():
    rows = [
        {"prompt": q, "completion": c, "label": good}
        for q, c, good in [("q", "a", True), ("q", "b", False), ("q", "a", False), ("r", "c", True)]
    ]
    thumbs = read_judgements(rows)
    pairs = pairs_of(thumbs)
    assert (pairs.query, pairs.chosen, pairs.rejected) == (["q"], ["a"], ["b"])
    assert labels_of(thumbs) == rows[2:]  # one up and one down for a: no pair of it
    two = [Feedback("q", "a", True, annotator="u"), Feedback("q", "b", False, annotator="v")]
    assert pairs_of(two).annotator == [""] and labels_of(two) == []


# And out


def test_trl_keeps_probabilities_and_rewards_and_turns_round_what_is_less_likely():
    pairs = Pairs(
        query=["q"] * 3,
        chosen=["a", "b", "c"],
        rejected=["b", "c", "a"],
        target=[0.9, 0.2, 0.5],
        rating=[2, 1, 0],
        chosen_reward=[3, 2, 1],
        rejected_reward=[1, 4, 1],
    )
    first, second = to_trl(pairs, torch.tensor(0.3))
    assert (second["chosen"], second["rejected"], second["margin"]) == ("c", "b", None)
    assert (second["score_chosen"], second["score_rejected"]) == (4, 2) and first["margin"] == 2
    assert [row["target"] for row in (first, second)] == [0.9, 0.8]
    assert first["strength"] == second["strength"] == pytest.approx(0.3)
    back = from_trl([first, second])
    assert (
        back.target.tolist() == [0.9, 0.8] and back.chosen_reward.tolist() == [3, 4] and back.rating[0] == 2
    )


@pytest.mark.parametrize(
    "strengths, message",
    [
        ([1.0, 2.0, 3.0], "3 strengths for 2 pairs"),
        (np.ones(1), "1 strengths for 2 pairs"),
        (torch.tensor([1.0, float("nan")]), "pair 1: its strength is not finite"),
        ([float("inf"), 1.0], "pair 0: its strength"),
        (np.ones((2, 1)), "a number for each pair"),
    ],
)
def test_strengths_that_do_not_fit_are_refused(strengths, message):
    pairs = pairs_of([Comparison("q", "a", "b", -1), Comparison("q", "a", "b", 1)])
    with pytest.raises(ValueError, match=message):
        to_trl(pairs, strengths)
    with pytest.raises(TypeError, match="strengths is a function"):
        to_trl(pairs, reward_gap())
    assert [row["strength"] for row in to_trl(pairs, [np.float32(0.5), torch.tensor(1.0)])] == [0.5, 1.0]


SAID = [
    Ranking("q", [Passage(name, f"text {name}", name.upper()) for name in "xyz"], [[1], [0]], annotator="u"),
    Ranking("q", [Passage(name, f"text {name}", name.upper()) for name in "zyx"], [[0, 1, 2]], annotator="v"),
    Comparison("q", "a", "b", -2, annotator="u"),
    Comparison("q", "b", "a", -3, True, annotator="v"),
    Comparison("r", "a", "b", 0, True, annotator="u"),
]


@pytest.mark.parametrize("out, exact", [(to_argilla, False), (to_label_studio, True)])
def test_there_and_back(out, exact):
    back = read_judgements(json.loads(json.dumps(out(SAID))))
    key = lambda said: (said.query, said.kind, said.annotator)  # noqa: E731
    for one, other in zip(sorted(SAID, key=key), sorted(back, key=key), strict=True):
        assert key(one) == key(other)
        if isinstance(one, Comparison):
            turned = one.answer_a != other.answer_a
            assert other.rating == (-one.rating if turned else one.rating) and other.both_bad == one.both_bad
        else:
            texts = [[[r.passages[i].full_text for i in sorted(t)] for t in r.tiers] for r in (one, other)]
            assert [set(t) for t in texts[0]] == [set(t) for t in texts[1]]
            assert not exact or one.item == other.item


def test_two_people_with_the_same_event_ids(tmp_path):
    """Both count, a retry does not, and an undo takes back its own annotator's."""
    log = PreferenceLog(tmp_path, "u")
    for who in ("u", "v", "v"):
        log.record(Comparison("q", "a", "b", 1, annotator=who, event_id="1"))
    assert [c.annotator for c in log.comparisons()] == ["u", "v"]
    log.undo("1")
    assert [c.annotator for c in log.comparisons()] == ["v"]


def test_an_editors_mark_costs_no_judgement(tmp_path):
    PreferenceLog(tmp_path).record(Comparison("q", "a", "b", 1))
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    log = PreferenceLog(tmp_path)
    assert len(log.comparisons()) == 1 and not log.problems()


def arena(winner, **answers):
    won = dict(zip(("winner_model_a", "winner_model_b", "winner_tie"), winner))
    return {"model_a": "m", "model_b": "n", "prompt": '["q?", "r?"]'} | answers | won


def test_the_arenas_flags_and_its_turns_as_json_lists():
    """LMSYS's on Kaggle: one flag of three says who won, and null is an answer that said nothing."""
    answers = {"response_a": '["x", "y"]', "response_b": '["x", null]'}
    won = [(1, 0, 0), ("0", "1", "0"), (0, 0, 1)]
    found = read_judgements([arena(winner, **answers) for winner in won])
    assert [one.rating for one in found] == [-1, 1, 0]
    assert found[0].query == "user: q?\nassistant: x\nuser: r?"
    assert (found[0].answer_a, found[0].answer_b) == ("y", "")
    for winner in [(1, 1, 0), (0, 0, 0)]:
        with pytest.raises(ValueError, match=r"row 0: one of winner_model_a, .* is 1, not"):
            read_judgements([arena(winner, **answers)])


def test_two_scores_are_a_vote():
    """WebGPT's comparisons: the question within an object, scores from -1 to 1 of sum 0."""
    rows = [
        {"question": {"full_text": "q", "id": "1"}, "answer_0": "x", "answer_1": "y"}
        | {"score_0": -score, "score_1": score, "quotes_0": {}, "tokens_0": {}}
        for score in (0.5, 0.0, -1.0)
    ]
    found = read_judgements(rows)
    assert [(one.query, one.rating) for one in found] == [("q", 1), ("q", 0), ("q", -1)]
    assert reward_gap()(pairs_of(found[::2])).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="without a vote"):
        read_judgements([rows[0] | {"score_1": None}])
    named = read_judgements([rows[0] | {"mine": "left"}], score="mine")
    assert named[0].rating == -1  # a column that is named counts, not the scores


def message(id, parent, role, text, rank=None):
    return {"message_id": id, "parent_id": parent, "role": role, "text": text, "rank": rank}


OASST = [
    message("4", "2", "prompter", "more?"),
    message("1", None, "prompter", "q"),
    message("2", "1", "assistant", "good", 0.0),
    message("3", "1", "assistant", "bad", 1.0),
    message("5", "4", "assistant", "worse", 1),
    message("6", "4", "assistant", "better", 0),
    message("7", "4", "assistant", "not judged", math.nan),
]


def test_message_trees_rank_the_answers_of_each_turn():
    """Open Assistant's, whole or a message a row in any order."""
    flat = read_judgements(OASST)
    assert [one.query for one in flat] == ["q", "user: q\nassistant: good\nuser: more?"]
    texts = [[one.passages[tier[0]].text for tier in one.tiers] for one in flat]
    assert texts == [["good", "bad"], ["better", "worse"]]
    nodes = {row["message_id"]: row | {"replies": []} for row in OASST}
    for row in OASST[:1] + OASST[2:]:
        nodes[row["parent_id"]]["replies"].append(nodes[row["message_id"]])
    tree = {"message_tree_id": "1", "tree_state": "ready_for_export", "prompt": nodes["1"]}
    assert [one.item for one in read_judgements([tree])] == [one.item for one in flat]
    with pytest.raises(ValueError, match="row 0: message '4' replies to one that is not there"):
        read_judgements(OASST[:1] + OASST[4:])


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.parquet", "a.csv.gz"])
def test_a_table_is_told_how_to_come_in(tmp_path, name):
    (tmp_path / name).write_bytes(b"prompt,chosen,rejected\nq,a,b")
    with pytest.raises(ValueError, match=r"a table, .*pandas\.read_.*to_dict"):
        read_judgements(tmp_path / name)


def test_what_tables_hold_for_a_gap_and_for_a_truth():
    thumbs = [{"prompt": "q", "completion": "a", "label": np.bool_(good)} for good in (True, False)]
    assert [thumb.good for thumb in read_judgements(thumbs)] == [True, False]
    with pytest.raises(ValueError, match="no 'rejected'"):
        read_judgements([{"prompt": "q", "chosen": "a", "rejected": math.nan}])
