"""A finding in plain sentences. Every number in them stands in the record, or is counted or divided from what does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from anomaly_ov.images.looks import shade_of, shape_of
from anomaly_ov.images.messages import counted, printable
from anomaly_ov.images.places import place_of, ways_to_place
from anomaly_ov.records import Finding, Region
from anomaly_ov.words.picking import MOST, Which

FEWEST_DIGITS, MOST_DIGITS = 3, 17
MOST_LISTED = 5
MOST_SEEN = 2


@dataclass(frozen=True)
class Sentences:
    """Of a finding with a score. Each method returns whole sentences."""

    finding: Finding

    def verdict(self) -> str:
        """Whether the image is anomalous, with score and threshold."""
        return f"{_capital(self._state)}."

    def yes_no(self, fine: bool) -> str:
        """The verdict as the answer to whether something is wrong, or with ``fine`` whether nothing is."""
        if self.finding.anomalous is None:
            return self.verdict()
        if fine and not self.finding.anomalous:
            return f"Yes, the image counts as normal ({self._scores})."
        return f"{'No' if fine or not self.finding.anomalous else 'Yes'}, {self._state}."

    def regions(self) -> str:
        """How many regions stand out, and where and how large the strongest is."""
        found = self.finding.regions
        if not found:
            return "No region stands out."
        where = f"{'' if len(found) == 1 else 'the strongest '}{self._place(found[0])}"
        return f"{_stand_out(len(found))}, {where}: {self._area(found[0])}."

    def seen(self) -> str:
        """What can be seen where: verdict, then shape, shade, size and place of the strongest regions."""
        found = self.finding.regions
        if not found:
            return f"{self.verdict()} No region stands out."
        told = [
            f"{_capital(self._place(one))}: {shape_of(one.elongation)}{shade_of(one.contrast)}, {self._area(one)}."
            for one in found[:MOST_SEEN]
        ]
        more = len(found) - MOST_SEEN
        return " ".join([self.verdict(), *told, *([f"{counted(more, 'more region')}."] if more > 0 else [])])

    def count(self) -> str:
        """How many regions stand out."""
        found = self.finding.regions
        return f"{self._although}{_stand_out(len(found))}." if found else self._nothing("None")

    def where(self) -> str:
        """Where each region lies."""
        found = self.finding.regions
        if not found:
            return self._nothing("Nowhere")
        listed = [f"{self._place(one)} (score {self._number(one.score)}, {_box(one)})" for one in found[:MOST_LISTED]]
        return f"{self._although}{_stand_out(len(found))}: {_listed(listed, len(found))}."

    def size(self) -> str:
        """How large each region is."""
        found = self.finding.regions
        if not found:
            return self._nothing("There is nothing to measure")
        if len(found) == 1:
            return f"{self._although}The region {self._place(found[0])} covers {self._extent(found[0])}."
        listed = [f"the one {self._place(one)} covers {self._extent(one)}" for one in found[:MOST_LISTED]]
        return f"{self._although}{_stand_out(len(found))}: {_listed(listed, len(found), ';')}."

    def image_size(self) -> str:
        """The image's own size."""
        wh = self._image_wh
        return "The record does not say." if wh is None else f"The image is {wh[0]} x {wh[1]} pixels."

    def score(self) -> str:
        """Score and threshold, and where the threshold comes from."""
        threshold = self.finding.threshold
        limit = "" if threshold is None else f", the threshold {self._threshold} ({printable(threshold.source)})"
        return f"The score is {self._score} on a scale from 0 to 1{limit}: {self._state_alone}."

    def why(self) -> str:
        """Which evidence the verdict rests on, and what the record cannot say."""
        found = self.finding.regions
        said = [self._because()]
        if found:
            which = "The region" if len(found) == 1 else f"The strongest of {len(found)} regions"
            said.append(f"{which}, {self._place(found[0])}, has the score {self._number(found[0].score)}.")
        said.append(self.compared())
        if self.finding.score_context is not None and self.finding.score_expert is not None:
            said.append(f"From the image alone the score would be {self._number(self.finding.score_expert)}.")
        return " ".join([*said, "What it is and what caused it, the record does not say."])

    def compared(self, source: bool = False) -> str:
        """What said what is normal; ``source``: also where that came from."""
        context = self.finding.context
        if context.kind == "none" or self.finding.score_context is None:
            why = f": {printable(context.note).rstrip('.')}" if context.note else ""
            return f"It was compared with no other image{why}."
        what = "images of its own folder" if context.kind == "folder" else "images known to be good"
        notes = [] if context.references is None else [counted(context.references, "reference")]
        notes += [f"from {printable(context.source)}"] if source and context.source else []
        text = f"It was compared with {what}" + (f" ({', '.join(notes)})" if notes else "")
        if context.distance is not None:
            text += f"; it lies {context.distance:.1f} times as far from them as is usual"
        return f"{text}."

    def region(self, which: Sequence[Which]) -> str:
        """Place, score and size of the regions that ``which`` picks."""
        found = self.finding.regions
        if not found:
            return self._nothing("There is no region")
        said = []
        for one in which:
            picked = self._picked(one)
            said += [self._of_region(number) for number in picked[:MOST_LISTED]]
            if not picked and isinstance(one, str):
                places = _listed(list(dict.fromkeys(self._place(region) for region in found[:MOST_LISTED])), 0)
                middle = f"No region has its middle {ways_to_place(one)[0]}"
                said.append(f"{middle}; {_stand_out(len(found))} {places}.")
            elif not picked:
                said.append(f"There is no region of that number; {_stand_out(len(found))}.")
        return self._although + " ".join(dict.fromkeys(said))

    @cached_property
    def _digits(self) -> int:
        """As many as it takes for no score to look like the threshold that it is not."""
        if self.finding.threshold is None:
            return FEWEST_DIGITS
        limit = self.finding.threshold.value
        scores = (self.finding.score, self.finding.score_expert, *(region.score for region in self.finding.regions))
        others = [score for score in scores if score is not None and score != limit]
        for digits in range(FEWEST_DIGITS, MOST_DIGITS):
            if all(f"{score:.{digits}f}" != f"{limit:.{digits}f}" for score in others):
                return digits
        return MOST_DIGITS

    def _number(self, value: float) -> str:
        return f"{value:.{self._digits}f}"

    @property
    def _score(self) -> str:
        assert self.finding.score is not None
        return self._number(self.finding.score)

    @property
    def _threshold(self) -> str:
        return "unknown" if self.finding.threshold is None else self._number(self.finding.threshold.value)

    @property
    def _scores(self) -> str:
        return f"score {self._score}, threshold {self._threshold}"

    @property
    def _state_alone(self) -> str:
        if self.finding.anomalous is None:
            return "there is no verdict"
        return "the image is anomalous" if self.finding.anomalous else "the image is not anomalous"

    @property
    def _state(self) -> str:
        return f"{self._state_alone} ({self._scores})"

    @property
    def _although(self) -> str:
        """Stands before regions of an image that is not anomalous all the same."""
        return "" if self.finding.anomalous else f"{_capital(self._state)}. "

    def _because(self) -> str:
        finding = self.finding
        if finding.score is None or finding.threshold is None or finding.anomalous is None:
            return self.verdict()
        reaches = finding.score >= finding.threshold.value
        if reaches != finding.anomalous:  # a record of another making
            return self.verdict()
        side = "reaches" if reaches else "stays below"
        return f"{_capital(self._state_alone)} because its score {self._score} {side} the threshold {self._threshold}."

    def _nothing(self, said: str) -> str:
        """What is told of an image without regions."""
        if self.finding.anomalous:
            return f"No single region stands out, though {self._state}."
        return f"{said}: {self._state}."

    def _picked(self, which: Which) -> list[int]:
        """Indices of the regions meant."""
        found = self.finding.regions
        indices = range(len(found))
        if isinstance(which, int):
            index = len(found) - 1 if which < 0 else which - 1
            return [index] if index in indices else []
        if which not in MOST:
            return [index for index in indices if self._lies(found[index], which)]
        by_area = which in ("largest", "smallest")
        key = [found[index].area if by_area else found[index].score for index in indices]
        return [key.index(max(key) if which in ("strongest", "largest") else min(key))]

    def _lies(self, region: Region, asked: str) -> bool:
        """ "on the left" holds for the corners on that side as well."""
        wh = self._image_wh
        place = "" if wh is None else place_of(region.box, wh)
        side = {"top": "upper ", "bottom": "lower "}.get(asked)
        return place == asked or (side is not None and place.startswith(side)) or place.endswith(f" {asked}")

    def _of_region(self, index: int) -> str:
        region = self.finding.regions[index]
        name = f"Region {index + 1} of {len(self.finding.regions)} lies {self._place(region)}"
        return f"{name}: score {self._number(region.score)}, {self._extent(region)} ({_box(region)})."

    def _place(self, region: Region) -> str:
        wh = self._image_wh
        return f"at {_box(region)}" if wh is None else ways_to_place(place_of(region.box, wh))[0]

    def _area(self, region: Region) -> str:
        wh = self._image_wh
        share = "" if wh is None else f", {_percent(region.area / (wh[0] * wh[1]))} % of the image"
        return f"{counted(region.area, 'pixel')}{share}"

    def _extent(self, region: Region) -> str:
        x0, y0, x1, y1 = region.box
        return f"{self._area(region)}, in a box of {x1 - x0} x {y1 - y0} pixels"

    @property
    def _image_wh(self) -> tuple[int, int] | None:
        width, height = self.finding.image.width, self.finding.image.height
        return None if width is None or height is None else (width, height)


def _box(region: Region) -> str:
    x0, y0, x1, y1 = region.box
    return f"x {x0} to {x1}, y {y0} to {y1}"


def _stand_out(count: int) -> str:
    return f"{counted(count, 'region')} {'stands' if count == 1 else 'stand'} out"


def _percent(share: float) -> str:
    """Of 0..1, with so many digits that small areas differ."""
    percent = 100 * share
    if percent < 0.01:
        return "less than 0.01"
    return f"{percent:.{0 if percent >= 10 else 1 if percent >= 1 else 2}f}"


def _listed(parts: Sequence[str], count: int, sign: str = ",") -> str:
    """ "a, b and c", or, where there are ``count`` of them in all, "a, b and 4 more"; long parts want a ";"."""
    more = [f"{count - len(parts)} more"] if count > len(parts) else []
    *first, last = [*parts, *more]
    return f"{f'{sign} '.join(first)}{sign if sign == ';' else ''} and {last}" if first else last


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
