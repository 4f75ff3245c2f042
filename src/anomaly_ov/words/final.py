"""What a model that thinks aloud answers in the end: without its ``<think>`` blocks, out of its last ``<answer>`` or
``\\boxed{}``.
"""

from __future__ import annotations

import re

_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_HEADLESS = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
"""Some servers send the block without its opening mark, which stands in the prompt."""
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_BOXED, _WRAPPED = r"\boxed{", re.compile(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}")


def final_answer(text: str) -> str:
    """``text`` as it is where it holds neither. A thought that never ended leaves nothing."""
    said = _HEADLESS.sub("", _THOUGHT.sub("", text)) if "think" in text.lower() else text
    answers = _ANSWER.findall(said)
    said = answers[-1].strip() if answers else said
    start = said.rfind(_BOXED)
    if start < 0:
        return said if said is text else said.strip()
    inside, depth = said[start + len(_BOXED) :], 1
    for at, character in enumerate(inside):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return _WRAPPED.sub(r"\1", inside[:at]).strip()
    return said.strip()
