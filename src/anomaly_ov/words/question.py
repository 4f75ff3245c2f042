"""What a question is about, by its words alone. A question with a word that no rule knows is not understood.

That strictness is the point: a record holds a verdict, places, sizes and scores, and a question about anything else
("Is it dangerous?", "What caused the damage?") must not be taken for one about these because some of its words are.
So every word has to be known, and one that is not refuses the question. Only where a thing is named ("Is the bottle
damaged?") any word may stand: then the verdict is told, but neither yes nor no, because the record does not know what
the image shows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from anomaly_ov.words.picking import Which, picked

Topic = Literal[
    "detect", "fine", "verdict", "describe", "count", "where", "size", "image size", "score", "why", "compared",
    "region",
]  # fmt: skip


@dataclass(frozen=True)
class Understood:
    """``topics``: in the order in which they are answered. ``which``: the regions asked about, none = all.

    ``named``: whether the question names a thing that the record knows nothing of.
    """

    topics: tuple[Topic, ...]
    which: tuple[Which, ...] = ()
    named: bool = False


def understood(question: str) -> Understood | None:
    """What ``question`` asks of a record, None for what a record cannot tell."""
    plain = _plain(question)
    if _IMAGE_SIZE.search(plain):
        return Understood(("image size",))
    text, which = picked(_OF_IMAGE.sub(" ", plain))
    kept, named = _without_names(text.split())
    words, text = set(kept), " ".join(kept)
    if words - _KNOWN or ("you" in words and not words & _PERCEIVING):
        return None
    measured: tuple[Topic, ...] = tuple(topic for topic, pattern in _TOPICS.items() if pattern.search(text))
    about_defects = which or words & (_DEFECT | _FINE | _REGION)
    if not about_defects and (named or words & _OBJECT or (words & _IMAGE and _OF_REGIONS.intersection(measured))):
        return None  # "How big is the bottle?"
    asks_what = words & _WH
    if which:
        of_record = measured or not asks_what or _WHAT_ABOUT.search(text)
        return Understood(("region",), which, named) if of_record else None
    if measured:
        return Understood(measured, named=named)
    if asks_what or not words & (_DEFECT | _FINE):
        return None
    if named or words & _NOT or (words & _DEFECT and words & _FINE):
        return Understood(("verdict",), named=named)
    return Understood(("detect",) if words & _DEFECT else ("fine",))


def _plain(question: str) -> str:
    """Lower-case words with a blank between them; contractions, polite phrases and wishes for the answer resolved."""
    text = question.lower().replace("\u2019", "'")
    for pattern, instead in _SPELLINGS:
        text = pattern.sub(instead, text)
    text = " ".join(re.findall(r"[^\W_]+", text))
    for pattern, instead in _PHRASES:
        text = pattern.sub(instead, text)
    return " ".join(text.split())


def _without_names(words: list[str]) -> tuple[list[str], bool]:
    """``words`` without up to two unknown ones where a thing is named: "is the glass bottle", "on the label"."""
    left: list[str] = []
    dropped = 0
    for word in words:
        naming = len(left) > 1 and left[-1] in _DETERMINERS and left[-2] in _BEFORE_NAMES
        if naming and word not in _KNOWN and dropped < 2:
            dropped += 1
        else:
            left.append(word)
    return left, dropped > 0


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _replacing(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), instead) for pattern, instead in pairs)


_DEFECT = _words(
    "defect defects defective anomaly anomalies anomalous abnormal abnormality abnormalities damage damaged damages "
    "fault faults faulty flaw flaws flawed problem problems issue issues wrong unusual odd strange suspicious bad "
    "irregular irregularity irregularities fail fails failed reject ng"
)
_FINE = _words("ok fine good normal intact undamaged flawless faultless pass passes")
_REGION = _words("region regions area areas spot spots box boxes")
_OBJECT = _words("object objects part parts item items thing things product products piece pieces sample component")
_IMAGE = _words("image images picture pictures photo photos")
_NOT = _words("not no none nothing never without free")
_WH = _words("what which who whose whom how why where when")
_PERCEIVING = _words(
    "see find found detect notice spot think know sure certain confident tell say show compare look count describe "
    "explain measure"
)
_DETERMINERS = _words("the this that these those my our your")
_BEFORE_NAMES = _words("is are does do has have on in of with for")
_FILLERS = _words(
    "a an the this that these those it its they them is are was were do does did has have had there here any anything "
    "anywhere something somewhere some everything and or but so then now please just only also too really actually "
    "exactly still all at of in on with for by about you your if whether see seen find found detect detected detects "
    "notice look looks looking show shows tell say give think know check contain contains what which how both every "
    "each one ones stand stands out place places total together marked flagged called considered rated judged labelled"
)
_MEASURED = _words(
    "compared compare compares comparison reference references context baseline score scores sure certain certainty "
    "confident confidence likely likelihood probability threshold many number count several multiple where location "
    "located position locate point corner side much big large size sizes wide width tall high height long length small "
    "dimensions extent pixel pixels percent percentage share cover covers covered affected why reason reasons explain "
    "evidence makes because basis based describe summary summarise summarize finding findings result results verdict "
    "measure measured more"
)
_KNOWN = _DEFECT | _FINE | _REGION | _OBJECT | _IMAGE | _NOT | _DETERMINERS | _FILLERS | _MEASURED

_PICTURE = r"(?:image|picture|photo)"
_REPLY = r"(?:\b(?:answer|reply|respond|keep it) )?"
_SPELLINGS = _replacing(
    (r"\bo\.k\b\.?|\bokay\b|\ball ?right\b", "ok"),
    (r"\bcan't\b|\bcannot\b", "can not"),
    (r"n't\b", " not"),
    (r"'s\b", " is"),
    (r"'re\b", " are"),
    (r"(?:#|\bno\. ?|\bnr\.? ?)(?=\d)", " number "),
    (r"%", " percent "),
    (r"\bphotograph", "photo"),
)
_PHRASES = _replacing(
    (rf"{_REPLY}(?:\b(?:with|just|only|either|simply) )*\b(?:a )?yes (?:or )?no\b", " "),
    (rf"{_REPLY}(?:\b(?:with|in|to|just) )*\b(?:one|a|a single) word(?: or (?:phrase|two))?\b", " "),
    (r"\b(?:can|could|would|will) you\b", " do you "),
    (r"\b(tell|show|give) me\b", r" \1 "),
    (r"\bwhere (?:exactly )?(?:should|do|must) (?:i|we) (?:have to )?look\b", " where "),
    (
        r"\b(?:free (?:of|from)|without) (?:any )?(?:defects?|damages?|faults?|flaws?)\b|\b(?:defect|fault) free\b",
        " ok ",
    ),
    (r"\bin (?:which|what) (?:part|place|corner|side|area|region|spot)\b", " where "),
    (r"\bcompare([ds]?) to\b", r" compare\1 with "),
    (r"\bmore than one\b", " several "),
    (r"\bhow (?:high|large|big) is (the|your) (?=score|threshold|probability|confidence)", r" what is \1 "),
    (r"\bthere be\b", " there "),
    (r"\bat all\b|\bto you\b", " "),
)
_IMAGE_SIZE = re.compile(
    rf"\bhow (?:big|large|wide|high|tall) is (?:the|this) (?:whole )?{_PICTURE}$|"
    rf"\b(?:size|dimensions|width|height) of (?:the|this) (?:whole )?{_PICTURE}$|\b{_PICTURE} size$"
)
_OF_IMAGE = re.compile(rf"\b(?:in|on|of|with|for) (?:(?:the|this|that|each) )?(?:whole )?{_PICTURE}s?\b")
_WHAT_ABOUT = re.compile(r"\babout\b")
_TOPICS: dict[Topic, re.Pattern[str]] = {
    "describe": re.compile(
        r"\b(?:describe|summary|summari[sz]e|findings?|results?|verdict)\b|\btell (?:more )?about\b|"
        r"\bwhat (?:did |do |have |has |was |is )?(?:you |it )?(?:find|found|detect|detected|measure|measured)\b"
    ),
    "count": re.compile(
        r"\bhow many\b(?! (?:pixel|percent|image|picture|photo|object|part|item|thing|product|piece|reference)s?\b)|"
        r"\bnumber of\b|\bcount\b|\bseveral\b|\bmultiple\b"
    ),
    "where": re.compile(
        r"\bwhere\b|\blocat(?:ed|ion)\b|\bposition\b|^(?:please |now |and )*(?:show|point|locate)\b|"
        r"\bwhich (?:part|place|corner|side|area|region|spot)\b"
    ),
    "size": re.compile(
        r"\b(?:big|large|sizes?|wide|width|tall|high|height|long|length|small|dimensions|extent|pixels?|percent|"
        r"percentage|share|covers?|covered|affected|how much)\b|\bwhat (?:is )?(?:the |its )?area\b"
    ),
    "score": re.compile(
        r"\b(?:scores?|sure|certain|certainty|confident|confidence|likely|likelihood|probability|threshold)\b|"
        r"\bhow (?:anomalous|suspicious|abnormal|unusual|normal|odd|strange)\b"
    ),
    "why": re.compile(r"\b(?:why|reasons?|explain|evidence|because|basis|based)\b|\bwhat makes\b|\bhow do you know\b"),
    "compared": re.compile(r"\b(?:compare[ds]?|comparison|references?|context|baseline)\b"),
}
_OF_REGIONS: frozenset[Topic] = frozenset(("count", "where", "size"))
