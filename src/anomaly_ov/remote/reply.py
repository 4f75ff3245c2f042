"""Reads what an endpoint answers, whole or in pieces: text, how it ended, tokens, P(yes). Trusts nothing it is sent.

Pieces are plain parsed JSON. Anything that is not as the chat-completions format says ends in ``EndpointError``;
fields that are only missing (usage, probabilities) become None.
"""

from __future__ import annotations

import math
from typing import Any

from anomaly_ov.errors import EndpointError
from anomaly_ov.records import Answer
from anomaly_ov.remote.failures import ReportedError, malformed, shortened, withheld

# Words of other servers for the two ends that matter.
_FINISH = {"eos": "stop", "eos_token": "stop", "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
_WORD_MARKS = " \t\r\n\u2581\u0120\u010a\"'*.,:!"  # spaces as tokenizers write them, quotes, emphasis, punctuation
_LEAST_LOGPROB, _MOST_TOKENS = -1e4, 10**9  # beyond these a number is no measurement
MIN_YES_NO = 0.01  # where yes and no together are less likely than this, the answer was about to be another


class Reply:
    """Collects one reply. ``add`` each piece in order, then ask for the ``answer``."""

    def __init__(self) -> None:
        self.text = ""
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None
        self._refusal = ""
        self._finish: str | None = None
        self._p_yes: float | None = None
        self._first_token_seen = False

    def add(self, piece: Any, streamed: bool) -> str:
        """The text that ``piece`` adds, perhaps none."""
        if not isinstance(piece, dict):
            raise malformed("its reply is no JSON object")
        if piece.get("error"):
            raise ReportedError.of(piece["error"])
        self._count(piece.get("usage"))
        choices = piece.get("choices")
        if streamed and not choices:
            return ""  # the last piece, with the usage
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise malformed("its reply has no choices")
        return self._add_choice(choices[0])

    def answer(self, streamed: bool, timing_ms: dict[str, float]) -> Answer:
        """The whole reply; raises EndpointError where it is none: withheld, broken off or empty."""
        if self._finish == "content_filter":
            raise withheld("its content filter stopped the answer")
        if self._refusal:
            raise withheld(f"the model declines: {shortened(self._refusal)}")
        if streamed and self._finish is None:
            raise EndpointError("the endpoint's answer broke off", hint="ask again")
        if not self.text.strip() and self._finish != "length":
            raise malformed("its answer is empty")
        finish = self._finish or "unknown"
        return Answer(self.text, self._p_yes, finish, self.tokens_in, self.tokens_out, timing_ms)

    def _add_choice(self, choice: dict[str, Any]) -> str:
        part = choice.get("message") or choice.get("delta")
        if part is None and choice.get("finish_reason"):
            part = {}  # the end of a stream; a whole reply without a message is found empty
        if not isinstance(part, dict):
            raise malformed("its reply has neither a message nor a piece of one")
        if isinstance(part.get("refusal"), str):
            self._refusal += part["refusal"]
        if isinstance(choice.get("finish_reason"), str):
            self._finish = _FINISH.get(choice["finish_reason"], choice["finish_reason"])
        if not self._first_token_seen:
            self._first_token_seen, self._p_yes = _first_token(choice.get("logprobs"))
        # Half a surrogate pair is legal JSON but no text that could be written anywhere.
        text = _text(part.get("content")).encode("utf-8", "replace").decode("utf-8")
        self.text += text
        return text

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self.tokens_in = _count(usage.get("prompt_tokens"), self.tokens_in)
            self.tokens_out = _count(usage.get("completion_tokens"), self.tokens_out)


def _count(value: Any, known: int | None) -> int | None:
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
    return value if usable else known


def _text(content: Any) -> str:
    """A message's content: a string, nothing, or a list of parts of which some are text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        texts = [part.get("text", "") for part in content]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    raise malformed("its answer is no text")


def _first_token(logprobs: Any) -> tuple[bool, float | None]:
    """Whether the first token that is not blank stands in ``logprobs``, and its P(yes)."""
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("token"), str) and entry["token"].strip(_WORD_MARKS):
            return True, p_yes(entry)
    return False, None


def p_yes(token: dict[str, Any]) -> float | None:
    """P(yes) / (P(yes) + P(no)) over a token and its alternatives, however these are capitalised and spaced.

    None where neither is likely (``MIN_YES_NO``). An alternative that the endpoint does not list counts as 0, so the
    result can be exactly 0 or 1.
    """
    listed = token.get("top_logprobs")
    entries = [entry for entry in (listed if isinstance(listed, list) else []) if isinstance(entry, dict)]
    if token.get("token") not in [entry.get("token") for entry in entries]:
        entries.append(token)
    mass = {"yes": 0.0, "no": 0.0}
    for entry in entries:
        word, logprob = entry.get("token"), entry.get("logprob")
        if isinstance(word, str) and isinstance(logprob, (int, float)):
            word, logprob = word.strip(_WORD_MARKS).lower(), max(min(logprob, 0.0), _LEAST_LOGPROB)
            if word in mass and not math.isnan(logprob):
                mass[word] += math.exp(logprob)
    total = mass["yes"] + mass["no"]
    return mass["yes"] / total if total >= MIN_YES_NO else None
