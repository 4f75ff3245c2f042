"""Describes a finding and answers questions about it from its record alone. The one answerer of all that speak here.

Of kind, cause, remedy and severity the answer says what can be seen and that the rest cannot be told: no part of this
package names them with a measured confidence. Questions that are not about the image are declined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anomaly_ov.errors import UsageError
from anomaly_ov.records import Answer, Finding
from anomaly_ov.words.beyond import Beyond, beyond
from anomaly_ov.words.question import Topic, Understood, understood
from anomaly_ov.words.sentences import Sentences

REFUSAL = (
    "The record of this image does not answer that: ask whether it is anomalous, where, in how many regions, how "
    "large, how it looks, with what score, why, or compared with what; anything else needs a language model "
    "('anomaly-ov ask' with --endpoint URL)."
)
UNTOLD: dict[Beyond, str] = {
    "medical": "This is no medical finding and no advice: ask a physician.",
    "remedy": "What to do with it, a person has to decide; this model gives no advice.",
    "cause": "What caused it cannot be told from the image.",
    "severity": "How serious it is cannot be told from the image.",
    "looks": "",
    "kind": "What kind of defect it is cannot be told with confidence.",
    "thing": "What the image shows beyond that, this model does not know.",
}
NAMED = "What the image shows, this model does not know."
QUESTIONS = ("Is there a defect?", "Where?", "How big?", "How sure?", "Why?")
"""What a page may offer to ask."""


def describe(finding: Finding) -> str:
    """The verdict, the strongest of the regions, and what the image was compared with; of a failed record its error."""
    if finding.error is not None or finding.score is None:
        return _failure(finding)
    told = Sentences(finding)
    return " ".join((told.verdict(), told.regions(), told.compared()))


def answer(finding: Finding, question: str) -> Answer:
    """The answer to ``question``. Only a plain question whether something is wrong, or nothing, has a ``p_yes``."""
    if finding.error is not None or finding.score is None:
        return Answer(_failure(finding), None, "stop")
    asked = understood(question)
    told = Sentences(finding)
    if asked is None:
        about = beyond(question)
        said = REFUSAL if about is None else f"{told.seen()} {_untold(finding, about)}".strip()
        return Answer(said, None, "stop")
    text = " ".join(_told(told, topic, asked) for topic in asked.topics)
    return Answer(f"{text} {NAMED}" if asked.named else text, _p_yes(finding, asked), "stop")


def ask(finding: Finding, question: str, **options: Any) -> Answer:
    """``answer``, as ``Finding.ask`` calls it. Raises ``UsageError`` for an empty question and for any option."""
    if options:
        what = f"the option {next(iter(options))} is a language model's"
        raise UsageError(what, hint="ask with the question alone; the model has no language side")
    if not question.strip():
        raise UsageError("the question is empty", hint="ask, for example, 'Where is the defect?'")
    return answer(finding, question)


def answer_together(findings: Sequence[Finding], question: str) -> Answer:
    """One answer about several views of one thing: the most anomalous view's, which is named by its number."""
    index = findings.index(most_anomalous(findings))
    given = answer(findings[index], question)
    if len(findings) == 1 or given.text == REFUSAL:
        return given
    which = f"This is view {index + 1} of {len(findings)}, the one with the highest score."
    return Answer(f"{given.text} {which}", given.p_yes, given.finish)


def most_anomalous(findings: Sequence[Finding]) -> Finding:
    """The view that speaks for all: an anomalous one before others, then the highest score."""
    return max(findings, key=lambda one: (bool(one.anomalous), one.score or 0.0))


def _told(told: Sentences, topic: Topic, asked: Understood) -> str:
    if topic in ("detect", "fine"):
        return told.yes_no(fine=topic == "fine")
    if topic == "region":
        return told.region(asked.which)
    if topic == "compared":
        return told.compared(source=True)
    if topic == "describe":
        return describe(told.finding)
    whole = {
        "verdict": told.verdict,
        "where": told.where,
        "count": told.count,
        "size": told.size,
        "image size": told.image_size,
        "score": told.score,
        "why": told.why,
    }
    return whole[topic]()


def _untold(finding: Finding, about: Beyond) -> str:
    """Where no region stands out, there is no "it" whose kind, cause or severity could be spoken of."""
    if about in ("kind", "cause", "severity") and not finding.regions:
        return "There is nothing else to be told of it."
    return UNTOLD[about]


def _p_yes(finding: Finding, asked: Understood) -> float | None:
    """The score's odds over the threshold's: 0.5 at the threshold, the score itself where the threshold is 0.5.

    A score is a logistic function of evidence, and to move the threshold is to shift that evidence: this is the score
    that the image would have had if the threshold had been 0.5. It keeps the order of scores and their side of the
    threshold, so it says yes exactly where the record does. It is no measured probability.
    """
    if asked.topics not in (("detect",), ("fine",)) or None in (finding.score, finding.threshold, finding.anomalous):
        return None
    assert finding.score is not None
    assert finding.threshold is not None
    score, limit = finding.score, min(max(finding.threshold.value, 0.0), 1.0)
    above, below = score * (1 - limit), limit * (1 - score)
    anomalous = 0.5 if above + below == 0 else above / (above + below)
    return anomalous if asked.topics == ("detect",) else 1 - anomalous


def _failure(finding: Finding) -> str:
    if finding.error is None:
        return "The image has no score, so nothing can be said of it."
    hint = f" ({finding.error.hint})" if finding.error.hint else ""
    return f"The image could not be inspected: {finding.error.message}{hint}."
