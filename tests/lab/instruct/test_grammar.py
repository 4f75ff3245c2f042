"""Templates stand for what they say, and two wordings in different dress are the same when bare."""

from __future__ import annotations

import pytest

from anomaly_ov_lab.instruct.phrases import bare, expand


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("Where is it?", ["Where is it?"]),
        ("Is it (bad|very bad)?", ["Is it bad?", "Is it very bad?"]),
        ("Where[ exactly][ now]?", ["Where exactly now?", "Where exactly?", "Where now?", "Where?"]),
        ("a|b (c|(d|e))", ["a", "b c", "b d", "b e"]),
        (
            "Is there {kind} <where>?",
            ["Is there {kind} here?", "Is there {kind} on it?"],
        ),
        ("(a|a)", ["a"]),
    ],
)
def test_expanded(template: str, texts: list[str]) -> None:
    assert list(expand(template, {"where": "here|on <what>", "what": "it"})) == texts


@pytest.mark.parametrize("template", ["(a", "a)", "a]", "[a", "((a)"])
def test_brackets_must_match(template: str) -> None:
    with pytest.raises(ValueError, match="bracket"):
        expand(template)


def test_a_name_must_be_known() -> None:
    with pytest.raises(KeyError, match="colour"):
        expand("Which <colour>?")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What's wrong here?", "what is wrong"),
        ("So, please tell me: where is it?", "Where is it"),
        ("Which colors do you see?", "OK, which colours do you see, please?"),
        ("Is there {kind}?", "is there {kind}"),
    ],
)
def test_dress_is_taken_off(first: str, second: str) -> None:
    assert bare(first) == bare(second)


def test_other_words_stay_other_words() -> None:
    assert bare("Where is it?") != bare("Where is that?")
    assert bare("Now?") == "now"
