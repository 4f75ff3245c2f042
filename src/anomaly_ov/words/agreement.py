"""Where the words of a language model contradict a record, by rule.

``checked`` is for models that answer by themselves: their verdict is compared with the record's, and a contradiction
is told beside the answer. ``added`` is for a model that only puts a plain answer into other words: whatever number,
place, size, kind, cause or advice its words hold has to stand in the plain answer.

A rule reads words and not meaning: it may miss a contradiction that is put in unusual words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from anomaly_ov.images.places import PLACE_WORDS
from anomaly_ov.records import Answer, Finding
from anomaly_ov.words.beyond import KINDS
from anomaly_ov.words.final import final_answer
from anomaly_ov.words.from_record import most_anomalous
from anomaly_ov.words.picking import one_of
from anomaly_ov.words.question import understood
from anomaly_ov.words.sentences import Sentences

YES_OR_NO = re.compile(r"\W*(?:is|are|was|were|do|does|did|has|have|had|can|could|any)\b", re.IGNORECASE)


def checked(answer: Answer, findings: Finding | Sequence[Finding], question: str) -> Answer:
    """A model's answer with its ``contradiction``; P(yes) stays only where yes or no was asked for."""
    finding = findings if isinstance(findings, Finding) else most_anomalous(findings)
    p_yes = answer.p_yes if YES_OR_NO.match(question) else None
    return replace(answer, p_yes=p_yes, contradiction=contradiction(finding, answer.text, question))


def contradiction(finding: Finding, text: str, question: str) -> str | None:
    """The record's verdict where ``text``, an answer to ``question``, says the opposite; else None."""
    if finding.anomalous is None or finding.score is None:
        return None
    said = verdict_said(text, question)
    return None if said in (None, finding.anomalous) else Sentences(finding).verdict()


def verdict_said(text: str, question: str = "") -> bool | None:
    """Whether ``text`` calls the image anomalous (True) or not (False); None where it says neither, or both.

    A leading yes or no counts where ``question`` asks whether something is wrong, or whether nothing is.
    """
    low = " ".join(final_answer(text).lower().replace("\u2019", "'").split())
    asked = understood(question)
    leading = re.match(r"\W*(yes|no)\b(?! (?:single )?regions?\b)", low)
    if leading and asked is not None and asked.topics in (("detect",), ("fine",)):
        return (leading[1] == "yes") == (asked.topics == ("detect",))
    normal = bool(_NORMAL.search(low))
    anomalous = bool(_ANOMALOUS.search(_NORMAL.sub(" ", low)))
    return None if normal == anomalous else anomalous


def added(plain: str, text: str) -> tuple[str, ...]:
    """What ``text`` says that the ``plain`` answer does not, in words; empty where it only says it otherwise."""
    faults = []
    if verdict_said(text) not in (None, verdict_said(plain)):
        faults.append("another verdict")
    for what, pattern in _CLAIMS.items():
        new = set(pattern.findall(text.lower())) - set(pattern.findall(plain.lower()))
        if what == "number":
            new = {one for one in new if float(one) not in {float(other) for other in pattern.findall(plain)}}
        if new:
            faults.append(f"{what}: {', '.join(sorted(new))}")
    return tuple(faults)


_BAD = r"(?:anomal\w+|defect\w*|damage\w*|fault\w*|flaw\w*|abnormal\w*|problems?|issues?|irregular\w*)"
_BE = r"(?:is|are|looks?|appears?|seems?|counts as|remains?)"
_NORMAL = re.compile(
    rf"\b(?:no|not|without|free of|free from|isn't|aren't|doesn't|don't|never)(?: \w+){{0,3}} {_BAD}\b|"
    rf"\bnothing(?: \w+){{0,3}} (?:wrong|unusual|suspicious|abnormal|anomalous)\b|"
    rf"\b{_BE}(?: to be)?(?: (?:completely|perfectly|entirely|quite|all|in))? "
    r"(?:normal|fine|ok|okay|good|intact|undamaged|flawless|faultless|good condition)\b"
)
_ANOMALOUS = re.compile(
    rf"\b{_BE}(?: (?:to be|clearly|highly|slightly|moderately))* "
    r"(?:anomalous|defective|damaged|faulty|flawed|abnormal|broken|bad|not ok|not normal)\b|"
    rf"\b(?:there (?:is|are)|has|have|shows?|contains?|see)(?: \w+){{0,3}} {_BAD}\b|\bsomething(?: \w+){{0,2}} wrong\b"
)
_CLAIMS: dict[str, re.Pattern[str]] = {
    "number": re.compile(r"\d+(?:\.\d+)?"),
    "number word": re.compile(r"\b(?:two|three|four|five|six|seven|eight|nine|ten|dozen|hundred|several|many|few)\b"),
    "place": re.compile(rf"\b{one_of(PLACE_WORDS)}\b|\b(?:corner|edge|side|inside|outside|front|back)\b"),
    "size": re.compile(r"\b(?:tiny|small|little|large|big|huge|wide|medium|minor|major|slight|massive)\b"),
    "kind": re.compile(rf"\b(?:{'|'.join(KINDS.split())})\b"),
    "look": re.compile(
        r"\b(?:dark\w*|bright\w*|red\w*|green\w*|blue\w*|yellow\w*|black|white|brown|narrow|elongated)\b"
    ),
    "cause or advice": re.compile(
        r"\b(?:caus\w+|due to|result of|should|must|recommend\w*|repair\w*|replace\w*|clean\w*|danger\w*|safe\w*|"
        r"urgent\w*|doctor|physician|likely|probably|certain\w*)\b"
    ),
}
