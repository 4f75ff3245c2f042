"""What is commonly known of each kind of defect, and the readable names of kinds and things. Written by hand.

Not here: how sentences are made of it (``answers``), and how they are read back (``reading``). No cause or action
holds the name of a kind, a place, a size or a severity, so that a report is read back without confusion (tested).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """``names``: the main one first, then synonyms; ``article`` stands before each of them.

    ``causes`` are noun phrases ("rough handling"), ``actions`` imperatives without a full stop ("clean it").
    """

    names: tuple[str, ...]
    article: str
    causes: tuple[str, ...]
    actions: tuple[str, ...]

    @property
    def name(self) -> str:
        """The main name."""
        return self.names[0]


KINDS: dict[str, Kind] = {
    "scratch": Kind(
        ("scratch", "scrape"), "a",
        ("rough handling", "a sharp tool", "rubbing against a hard part"),
        ("polish the surface", "check how parts are handled"),
    ),
    "crack": Kind(
        ("crack", "fracture"), "a",
        ("too much stress", "a hard blow", "fast cooling"),
        ("replace the part", "take it out of use"),
    ),
    "dent": Kind(
        ("dent", "dimple"), "a",
        ("a blow from outside", "pressure from a tool", "a fall"),
        ("press it flat again", "check the packing"),
    ),
    "hole": Kind(
        ("hole", "puncture"), "a",
        ("a sharp object", "gas trapped in the material", "heavy wear"),
        ("close it or replace the part", "check the tool"),
    ),
    "stain": Kind(
        ("stain", "smear"), "a",
        ("spilled liquid", "oil from a machine"),
        ("wash the surface", "wipe it with a solvent"),
    ),
    "contamination": Kind(
        ("contamination", "dirt"), "some",
        ("dust in the air", "an unclean machine", "poor filters"),
        ("clean the surface", "clean the machine"),
    ),
    "missing_part": Kind(
        ("missing part", "absent part"), "a",
        ("a skipped assembly step", "a part that came off"),
        ("add what is lacking", "check the assembly"),
    ),
    "misplaced_part": Kind(
        ("misplaced part", "shifted part"), "a",
        ("a wrong setting in assembly", "a part that moved"),
        ("put it back in position", "adjust the assembly machine"),
    ),
    "colour_shift": Kind(
        ("colour shift", "wrong colour"), "a",
        ("a wrong mix of paint", "too much heat", "strong sunlight"),
        ("check the paint mix", "compare it with a sample"),
    ),
    "blur": Kind(
        ("blurred spot", "blurry area"), "a",
        ("a dull finish", "grease on the lens", "worn texture"),
        ("clean the lens and look again", "finish the surface again"),
    ),
    "burn": Kind(
        ("burn mark", "scorch mark"), "a",
        ("too much heat", "an electric short", "a spark"),
        ("lower the heat", "check the power supply"),
    ),
    "corrosion": Kind(
        ("corrosion", "rust"), "some",
        ("water and air", "salt", "a worn coating"),
        ("brush it off and coat it", "keep it dry"),
    ),
    "print_error": Kind(
        ("print error", "misprint"), "a",
        ("a blocked nozzle", "a slipped printer", "low ink"),
        ("print it again", "check the printer"),
    ),
    "deformation": Kind(
        ("deformation", "distortion"), "a",
        ("too much force", "heat in the mould", "pressure"),
        ("straighten it", "replace the part"),
    ),
    "fibre": Kind(
        ("fibre", "hair"), "a",
        ("dust from cloth", "an unclean room"),
        ("blow it off", "clean the room"),
    ),
    "fold": Kind(
        ("fold", "crease"), "a",
        ("careless packing", "uneven tension"),
        ("flatten it", "adjust the tension"),
    ),
    "broken_pattern": Kind(
        ("broken pattern", "broken line"), "a",
        ("a tool that skipped", "a cut wire or thread"),
        ("repair the line", "check the machine"),
    ),
    "pitting": Kind(
        ("pitting", "pits"), "some",
        ("wear under load", "acid", "poor lubrication"),
        ("lubricate it and watch the wear", "replace the part"),
    ),
    "chipped_edge": Kind(
        ("chipped edge", "broken edge"), "a",
        ("a blow on the rim", "careless cutting"),
        ("grind the rim smooth", "reject the part"),
    ),
    "dark_area": Kind(
        ("dark area", "dark patch"), "a",
        ("a dead region", "lost contact", "shade from soot"),
        ("test this region", "measure it again"),
    ),
    "bright_blob": Kind(
        ("bright blob", "bright spot"), "a",
        ("a strong reflection", "extra material", "a growth"),
        ("take a second picture", "ask an expert"),
    ),
    "rot": Kind(
        ("rot", "decay"), "some",
        ("old age", "wet storage", "fungus"),
        ("throw it away", "store it cool and dry"),
    ),
    "foreign_patch": Kind(
        ("foreign patch", "patch of other material"), "a",
        ("mixed material", "a bad repair", "forgotten tape"),
        ("remove what does not belong", "check the material"),
    ),
}  # fmt: skip

URGENCY: dict[str, str] = {
    "slight": "It can wait",
    "moderate": "Do it soon",
    "severe": "Do it at once",
}


@dataclass(frozen=True)
class Thing:
    """A readable name and the article it takes ("a circuit board", "wood")."""

    name: str
    article: str = ""

    @property
    def phrase(self) -> str:
        """ "a circuit board", "wood"."""
        return f"{self.article} {self.name}".strip()


# What the generator calls surfaces and objects -> how people say it.
SURFACES: dict[str, Thing] = {
    "brushed metal": Thing("brushed metal"),
    "cast metal": Thing("cast metal"),
    "woven fabric": Thing("woven fabric"),
    "leather": Thing("leather"),
    "dark rubber": Thing("dark rubber"),
    "wood": Thing("wood"),
    "stone": Thing("stone"),
    "granite": Thing("granite"),
    "concrete": Thing("concrete"),
    "paper": Thing("paper"),
    "carpet": Thing("carpet"),
    "glazed ceramic": Thing("glazed ceramic"),
    "painted surface": Thing("painted surface", "a"),
    "tiles": Thing("tiles"),
    "perforated sheet": Thing("perforated sheet", "a"),
    "solar cell": Thing("solar cell", "a"),
    "tissue section": Thing("tissue section", "a"),
    "circuit board": Thing("circuit board", "a"),
    "printed label": Thing("printed label", "a"),
    "ruled pattern": Thing("ruled pattern", "a"),
    "bristles": Thing("bristles"),
    "plain backdrop": Thing("plain backdrop", "a"),
}
OBJECTS: dict[str, Thing] = {
    "washer": Thing("washer", "a"),
    "nut": Thing("nut", "a"),
    "gear": Thing("gear", "a"),
    "screw head": Thing("screw head", "a"),
    "screw": Thing("screw", "a"),
    "capsule": Thing("capsule", "a"),
    "tablet": Thing("tablet", "a"),
    "bottle top": Thing("bottle cap", "a"),
    "chip": Thing("computer chip", "a"),
    "fruit": Thing("fruit", "a"),
    "biscuit": Thing("biscuit", "a"),
    "cable": Thing("cable", "a"),
    "pin": Thing("pin", "a"),
    "moulded part": Thing("moulded part", "a"),
    "head": Thing("head scan", "a"),
}
# Things of labelled sets beyond those.
OTHERS: dict[str, Thing] = {
    "ball screw": Thing("ball screw", "a"),
    "circuit board scan": Thing("circuit board scan", "a"),
    "apple": Thing("apple", "an"),
    "banana": Thing("banana", "a"),
    "orange": Thing("orange", "an"),
    "object": Thing("object", "an"),
}
THINGS: dict[str, Thing] = {**SURFACES, **OBJECTS, **OTHERS}

# Too alike to be offered as the wrong answer about one another.
LOOK_ALIKE: tuple[frozenset[str], ...] = (
    frozenset({"stone", "granite", "concrete"}),
    frozenset({"plain backdrop", "painted surface"}),
    frozenset({"paper", "printed label", "plain backdrop"}),
    frozenset({"screw", "screw head", "ball screw"}),
    frozenset({"nut", "washer"}),
    frozenset({"tissue section", "head scan"}),
    frozenset({"circuit board", "circuit board scan"}),
    frozenset({"fruit", "apple", "banana", "orange"}),
    frozenset({"carpet", "woven fabric", "bristles"}),
)


def may_be_confused(first: str, second: str) -> bool:
    """Whether two things (readable names) are one, or belong to one group of look-alikes."""
    return first == second or any(first in group and second in group for group in LOOK_ALIKE)
