"""``TYPED``: questions as people type them, written by hand and kept out of training whole (case and signs aside).

They measure what the wordings of ``questions`` held out from training cannot: short, careless, everyday questions.
Every intent is asked in every form it has. Never add one of them to the wordings of training; ``questions`` drops it.
"""

from __future__ import annotations

from typing import Literal

TYPED: tuple[tuple[str, Literal["word", "sentence"], Literal["main", "all"], str], ...] = (
    ("detect", "sentence", "all", "Anything wrong?"),
    ("detect", "sentence", "all", "is this thing broken"),
    ("detect", "sentence", "all", "do you notice anything odd?"),
    ("detect", "word", "all", "any defects? just yes or no"),
    ("detect", "word", "all", "Is it damaged at all? Yes or no, please."),
    ("fine", "sentence", "all", "looks good to you?"),
    ("fine", "sentence", "all", "Would this pass inspection?"),
    ("fine", "word", "all", "is it still ok? yes/no"),
    ("describe", "sentence", "all", "tell me about this picture"),
    ("describe", "sentence", "all", "What's going on here?"),
    ("kind", "sentence", "all", "what's the matter with it?"),
    ("kind", "sentence", "main", "What is the biggest problem you see?"),
    ("kind", "word", "main", "what sort of flaw is it mainly? one or two words"),
    ("kind_check", "sentence", "all", "could that be {kind}?"),
    ("kind_check", "word", "all", "Got {kind} in there? Yes or no."),
    ("place", "sentence", "main", "Where exactly?"),
    ("place", "sentence", "main", "where do i have to look"),
    ("place", "word", "main", "And where is that? Short answer."),
    ("place_check", "sentence", "all", "What about {place}, anything bad there?"),
    ("place_check", "word", "all", "is it broken {place}? yes or no"),
    ("count", "sentence", "all", "how many did you find"),
    ("count", "sentence", "all", "So how many problems in total?"),
    ("count", "word", "all", "number of faults? only the number"),
    ("size", "sentence", "main", "how large is that thing?"),
    ("size", "word", "main", "big or small? one word"),
    ("severity", "sentence", "main", "How bad is it really?"),
    ("severity", "sentence", "main", "Do I need to worry?"),
    ("severity", "word", "main", "is that serious? just a word please"),
    ("cause", "sentence", "main", "Why?"),
    ("cause", "sentence", "main", "How did that happen?"),
    ("cause", "sentence", "main", "any idea where this comes from"),
    ("action", "sentence", "main", "What should I do?"),
    ("action", "sentence", "main", "What should I do now?"),
    ("action", "sentence", "main", "can this be saved"),
    ("surface", "sentence", "all", "What am I looking at?"),
    ("surface", "sentence", "all", "what is that supposed to be"),
    ("surface", "word", "all", "object name please, a word will do"),
    ("surface_check", "sentence", "all", "Would you say that is {other}?"),
    ("surface_check", "word", "all", "{other}, yes or no?"),
    ("colours", "sentence", "all", "what color is it mostly?"),
    ("colours", "word", "all", "colours? just a few words"),
    ("report", "sentence", "main", "Can I have the whole story?"),
    ("report", "sentence", "main", "report please, with everything that matters"),
)
