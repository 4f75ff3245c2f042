"""What a text encoder is told about normal and anomalous objects: two sentences, or a compositional ensemble.

The ensemble puts every state into every template (WinCLIP, arXiv 2303.14814, section 4.1; lists: its appendix A):
7 x 22 normal and 4 x 22 anomalous sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

ANY_OBJECT = "object"
"""What a thing is called when its name is not known."""

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ANOMALOUS_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")

_BOTH_ARTICLES = ("cropped", "close-up", "bright", "dark", "jpeg corrupted", "blurry")
_SIZES = ("", "small ", "large ")
_PURPOSES = ("visual inspection", "anomaly detection")
TEMPLATES = (
    *(f"a {look} photo of {article} {{}}." for look in _BOTH_ARTICLES for article in ("a", "the")),
    *(f"a photo of {article} {size}{{}}." for size in _SIZES for article in ("a", "the")),
    *(f"a photo of {article} {{}} for {purpose}." for purpose in _PURPOSES for article in ("a", "the")),
)


@dataclass(frozen=True)
class Prompts:
    """Sentences about one object in either state."""

    normal: tuple[str, ...]
    anomalous: tuple[str, ...]


def two_sentences(name: str) -> Prompts:
    """One sentence per state, as plain CLIP is asked in the AnomalyCLIP paper (arXiv 2310.18961, appendix)."""
    name = spoken(name)
    return Prompts((f"a photo of a normal {name}.",), (f"a photo of an anomalous {name}.",))


def compositional(name: str) -> Prompts:
    """Every state of the object in every template."""
    return Prompts(_filled(NORMAL_STATES, name), _filled(ANOMALOUS_STATES, name))


def spoken(name: str) -> str:
    """A category's name in words ("metal_nut" -> "metal nut"); ``ANY_OBJECT`` for an empty one."""
    return " ".join(name.replace("_", " ").replace("-", " ").split()) or ANY_OBJECT


def _filled(states: tuple[str, ...], name: str) -> tuple[str, ...]:
    named = [state.replace("{}", spoken(name)) for state in states]
    return tuple(template.replace("{}", state) for state in named for template in TEMPLATES)
