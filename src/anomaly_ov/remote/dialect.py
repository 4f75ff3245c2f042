"""How a request is worded: the chat-completions format, and the three places where servers disagree about it.

Newer models call the longest answer's field otherwise, older servers do not know the option that makes a stream end
with its usage, and some give no token probabilities. An endpoint that complains about one of these is asked again in
its own words, from then on: the answer is the same, in the last case without P(yes). Complaints about any other field
are passed on, for leaving that out would change the answer.
"""

from __future__ import annotations

from typing import Any

from anomaly_ov.remote.config import EndpointConfig

TOP_LOGPROBS = 20  # the most that the format allows: yes and no come in many spellings


class Dialect:
    """Words requests for one endpoint and remembers what it did not understand."""

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        self._length_field = "max_tokens"
        self._asks_usage = True
        self._asks_logprobs = config.logprobs

    def body(self, messages: list[dict[str, Any]], stream: bool) -> dict[str, Any]:
        """The request's fields."""
        config = self._config
        body: dict[str, Any] = {"model": config.model, "messages": messages, self._length_field: config.max_tokens}
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if self._asks_logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        if stream:
            body |= {"stream": True}
            if self._asks_usage:
                body["stream_options"] = {"include_usage": True}
        return body

    def learn(self, complaint: str, sent: dict[str, Any]) -> bool:
        """Whether, after ``complaint`` about the body ``sent``, requests will be worded differently."""
        if "max_completion_tokens" in complaint and "max_tokens" in sent:
            self._length_field = "max_completion_tokens"
            return True
        if "stream_options" in complaint and "stream_options" in sent:
            self._asks_usage = False
            return True
        if "logprobs" in complaint and "logprobs" in sent:
            self._asks_logprobs = False
            return True
        return False
