"""A question about one region of a finding, with the region's place put into words.

The language model was taught places in one kind of question only, yes or no about a place: "Is there any damage in the
upper left?" (``instruct.questions`` of the lab). So a question that takes yes or no gets the place where such a
question has it, and any other one is led by it: "In the upper left: what is wrong here?".

Measured with the embedded model on 32 synthetic pictures of two defects each at different places: yes or no questions
are answered rightly in 0.50 to 0.62 of all cases with the place put in, 0.28 to 0.50 without, 0.00 to 0.53 led by it.
Of open questions no wording makes it tell the two defects apart (the right kind in 0.06, the other one's in 0.06);
putting the place inside or behind them makes it answer another question, leading them by it does not. A larger
language model can be expected to follow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from anomaly_ov.images.places import place_of, ways_to_place
from anomaly_ov_server.faults import Fault

_YES_OR_NO = re.compile(r"(is|are|do|does|did|has|have|can|could|was|were)\b", re.IGNORECASE)
_WHOLE_PICTURE = re.compile(r" (here|there|in (?:the|this) (?:image|picture|photo))(?=[?.!,]|$)", re.IGNORECASE)


def about_region(question: str, record: dict[str, Any], region: int) -> str:
    """``question`` about region number ``region`` of a published record. Raises ``Fault`` 400 if there is none."""
    image, box = record["image"], _region(record, region)["box"]
    place = place_of(box, (image["width"], image["height"]))
    return in_place(question.strip(), ways_to_place(place)[0])


def about_number(question: str, record: dict[str, Any], region: int) -> str:
    """As ``about_region``, for answers from the record, which knows its regions by number."""
    _region(record, region)
    return f"Region {region + 1}: {question.strip()}"


def in_place(question: str, where: str) -> str:
    """ "Is anything wrong here?", "on the left" -> "Is anything wrong on the left?"."""
    if not _YES_OR_NO.match(question):
        return f"{where[0].upper()}{where[1:]}: {question}"
    placed, found = _WHOLE_PICTURE.subn(f" {where}", question, count=1)
    if found:
        return placed
    body, mark, rest = question.partition("?")
    return f"{body} {where}{mark}{rest}"


def _region(record: dict[str, Any], region: int) -> dict[str, Any]:
    regions: Sequence[dict[str, Any]] = record["regions"]
    if region >= len(regions):
        what = f"the finding has {len(regions)} regions, counted from 0"
        raise Fault(400, "no_such_region", what, hint="see 'regions' of the finding", param="anomaly.region")
    return regions[region]
