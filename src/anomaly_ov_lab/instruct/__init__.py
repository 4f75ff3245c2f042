"""Conversations about pictures: made from facts and labels, read from LLaVA JSON, and what an answer says. No torch."""

from __future__ import annotations

from anomaly_ov_lab.instruct.answers import Turn
from anomaly_ov_lab.instruct.conversation import Conversation, ask, conversation_about
from anomaly_ov_lab.instruct.labels import Known, known_of
from anomaly_ov_lab.instruct.seen import is_held_out

__all__ = ["Conversation", "Known", "Turn", "ask", "conversation_about", "is_held_out", "known_of"]
