"""Which of the questions that ``question`` does not understand are about the image all the same, and what they ask.

Kind, cause, remedy, severity, looks, and what the image shows at all: none of these is in a record, so the answer says
what can be seen and that the rest cannot be told. A question taken for one of these by mistake is told nothing false.
Anything else is not about the image. Health comes first: no answer about it may sound like advice.
"""

from __future__ import annotations

import re
from typing import Literal

MOST_READ = 500
"""Characters of a question that are looked at."""
Beyond = Literal["medical", "remedy", "cause", "severity", "looks", "kind", "thing"]


def beyond(question: str) -> Beyond | None:
    """What ``question`` asks of the image beyond its record; None if it is about something else."""
    text = " ".join(re.findall(r"[^\W_]+", question[:MOST_READ].lower().replace("\u2019", "'").replace("'s", " is")))
    for asks, pattern in _ASKS.items():
        if pattern.search(text):
            return asks if asks == "medical" or _of_image(text) else None
    return None


def _of_image(text: str) -> bool:
    """It points to the image or to something wrong, or holds nothing else that it could be about."""
    return bool(_POINTS.search(text)) or not set(text.split()) - _EMPTY


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


def _one(words: str) -> str:
    return rf"\b(?:{'|'.join(words.split())})\b"


KINDS = (
    "scratch scratched scratches crack cracked cracks dent dented dents rust rusty rusted corrosion corroded hole "
    "holes stain stained stains burn burnt burned scorched broken break breakage missing bent bend chip chipped torn "
    "tear contaminated contamination dirt dirty dust dusty foreign discoloured discolored discolouration "
    "discoloration deformed deformation misaligned misplaced leak leaking wear worn pit pitted pitting bubble bubbles "
    "blowhole delamination fracture fractured split cut gap fray frayed melted loose mould mold wrinkle wrinkled "
    "print smear smudge spill rotten bruise bruised short"
)
_MEDICAL = (
    "doctor doctors physician medical medicine patient patients tumour tumours tumor tumors cancer cancerous lesion "
    "lesions disease diseases diagnosis diagnose diagnosed haemorrhage hemorrhage bleeding stroke mri xray ct "
    "radiologist surgery treatment therapy symptom symptoms clinical benign malignant pneumonia hospital sick ill "
    "healthy health brain lung lungs chest skull metastasis infection pregnant"
)
_WHO = "(?:i|we|you|one|it|they|this|that|someone)"
_DOING = (
    "do ship use used sell sold repair repaired fix fixed throw keep kept discard scrap replace replaced clean cleaned "
    "reject rejected accept accepted return returned rework reworked polish install deliver send pass done stop eat"
)
_ASKS: dict[Beyond, re.Pattern[str]] = {
    "medical": _any(_one(_MEDICAL), r"\bx ray\b"),
    "remedy": _any(
        rf"\b(?:should|shall|must|can|could|may|do|would) (?:{_WHO}|the \w+)\b.*{_one(_DOING)}",
        r"\b(?:what|anything) (?:to do|needs to be done|can be done|should be done|must be done|next)\b|\bwhat now\b",
        _one("repair repairable fix fixable remedy rework scrap ship shippable usable sellable advice advise action"),
        r"\b(?:recommend\w*|actions|next steps?|fit for use|(?:safe|ok|okay|good|fit) to)\b",
        rf"\bhow (?:do|can|should|would) {_WHO} (?:repair|fix|clean|remove|avoid|prevent)\b",
    ),
    "cause": _any(
        r"\bcaus\w*|\bhow did (?:it|this|that|the)\b|\bhow (?:was|were|has|have) (?:it|this|that|they|the)\b",
        r"\bwhat happened\b|\bwho (?:did|damaged|broke)\b|\bwhy (?:did|has|was|were)\b|\bwhat led to\b",
        r"\b(?:come|comes|came) from\b|\bdue to\b|\breason for\b|\bresponsible\b|\bwhose fault\b|\borigin\b",
    ),
    "severity": _any(
        r"\bhow (?:bad|serious|severe|dangerous|critical|deep|important)\b",
        _one(
            "serious severe severity dangerous danger critical harmful risk risky safe urgent deep cosmetic functional"
        ),
    ),
    "looks": _any(
        _one("color colors colour colours darker brighter lighter dark bright shape shaped round elongated appearance"),
        r"\bwhat (?:does|do) .*\blooks? like\b|\bhow (?:does|do) .*\blook\b|\btexture\b",
    ),
    "kind": _any(
        _one(KINDS),
        _one("kind kinds type types sort class category nature name identify classify"),
        r"\bwhat (?:is|are) (?:(?:the|this|that|actually|exactly|main|it|wrong|problem|issue|defects?|anomal\w+|damage|"
        r"fault|flaw|matter|with|here|there|not|ok|normal|unusual|strange|in|image|picture|region|spot|area|\d+)\b ?"
        r")+$",
        r"\bwhich (?:defects?|damage|fault|anomal\w+)\b|\bwhat (?:is|are) (?:at|on|in) the\b",
    ),
    "thing": _any(
        r"\bwhat (?:is|are) (?:shown|depicted|displayed|visible|pictured)\b|\bwhat (?:do|can) you see\b",
        r"\bwhat does (?:it|this|the (?:image|picture|photo)) show\b|\bmade of\b|\bhow many \w+|\bserial number\b",
        r"\bwhat (?:material|object|product|part|thing)\b|\bhow (?:big|large|long|wide|old|heavy) is\b",
        r"\b(?:is|are) (?:it|this|that|these|those|there) (?:a|an|any)\b",
    ),
}
_POINTS = _any(
    _one(
        "it this that these those them they here there wrong shown suspicious unusual normal ok damage damaged faulty"
    ),
    _one(KINDS),
    r"\b(?:defect|anomal|abnormal)\w*|\b(?:fault|flaw|problem|issue|region|area|spot|image|picture|photo)s?\b",
    r"\b(?:part|piece|item|object|product)s?\b|\bbox(?:es)?\b|\b(?:left|right|top|bottom|centre|center|middle|corner)\b",
)
_FUNCTION_WORDS = (
    "what which how who when should shall must can could may would do does did i we you be is are was done to now next "
    "happened cause caused causes repair fix action actions recommend recommended colour color colours colors shape "
    "kind type the a an of and or any advice reason bad serious severe severity dangerous see look looks like made "
    "from come came material please then name deep safe risk explain tell say"
)
_EMPTY = frozenset(_FUNCTION_WORDS.split())
