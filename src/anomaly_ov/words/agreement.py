"""Where the words of a language model contradict a record, by rule: its verdict is compared with the record's.

A rule reads words and not meaning: it may miss a contradiction that is put in unusual words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from anomaly_ov.records import Answer, Finding
from anomaly_ov.words.final import final_answer
from anomaly_ov.words.from_record import most_anomalous
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
    low = _OPEN.sub(" ", low)
    normal = bool(_NORMAL.search(low))
    anomalous = bool(_ANOMALOUS.search(_NORMAL.sub(" ", low)))
    return None if normal == anomalous else anomalous


_OPEN = re.compile(r"\b(?:whether|if) [^,.;:?!]*")
"""What is left open is not said."""
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
