"""A conversation without a language model: what the findings' own records say, in the shape of ``chat.Chat``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from anomaly_ov.records import Answer, Finding
from anomaly_ov.words.from_record import answer_together


class RecordChat:
    """About one picture, or several views of one thing. ``history`` changes nothing: each question stands alone."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self._findings = [replace(finding, significance_map=None, talk=None) for finding in findings]
        self.history: list[tuple[str, str]] = []

    def check(self, question: str, *, max_tokens: int) -> int:
        """Tokens that are read: none. Any question may be asked; what the record does not know is refused in words."""
        return 0

    def ask(
        self,
        question: str,
        *,
        max_tokens: int,
        temperature: float,
        on_text: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> Answer:
        """The answer, in one piece: no limit, temperature or stop applies."""
        answer = answer_together(self._findings, question)
        on_text(answer.text)
        return answer
