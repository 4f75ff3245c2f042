"""Conversations about pictures: made from facts and labels, read from LLaVA JSON, and what an answer says. No torch."""

from __future__ import annotations

from anomaly_ov.instruct.answers import Turn
from anomaly_ov.instruct.conversation import Conversation, ask, from_facts, from_label
from anomaly_ov.instruct.held_out import is_held_out
from anomaly_ov.instruct.labels import Known, known_of

__all__ = ["Conversation", "Known", "Turn", "ask", "from_facts", "from_label", "is_held_out", "known_of"]
