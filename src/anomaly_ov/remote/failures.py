"""What went wrong with a request, in one sentence, and whether another attempt makes sense.

Never says the key: an endpoint's own words are cut short and freed of it, and the sentence about a refused key holds
none of them. ``openai`` is imported when the first failure is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anomaly_ov.errors import EndpointError, EndpointRefused
from anomaly_ov.images.messages import one_line, printable
from anomaly_ov.remote.config import EndpointConfig
from anomaly_ov.remote.limits import MAX_RETRY_AFTER_S, retry_after

MAX_QUOTED = 200
TOO_MANY = 429
_RETRIED = {408, 409, 425, TOO_MANY}
_FILTER_CODES = {"content_filter", "content_policy_violation"}
_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached"}
_CONTEXT_WORDS = ("context_length", "context length", "maximum context", "too many tokens")


class Interrupted(Exception):
    """The connection broke while the answer was being read."""


class OutOfTime(Exception):
    """The answer took longer than the configuration allows."""


class ReportedError(Exception):
    """An error in the endpoint's own words. ``status``: of HTTP, None where it reported the error inside a reply."""

    def __init__(self, status: int | None, words: str, code: str = "", wanted_s: float | None = None) -> None:
        super().__init__(words)
        self.status, self.words, self.code, self.wanted_s = status, words, code, wanted_s

    @classmethod
    def of(cls, body: Any, status: int | None = None, wanted_s: float | None = None) -> ReportedError:
        """From an error object (or whatever stands in its place). Some relays put a status into ``code``."""
        if not isinstance(body, dict):
            return cls(status, str(body or ""), wanted_s=wanted_s)
        code = body.get("code")
        if status is None and isinstance(code, int) and 400 <= code < 600:
            status = code
        words = body.get("message") or body.get("detail") or body
        return cls(status, str(words), str(code or ""), wanted_s)


@dataclass(frozen=True)
class Failure:
    """``retry``: another attempt may succeed, after ``wanted_s`` seconds if given. ``billed``: it may have cost money.

    ``words``: the endpoint's own, for `Dialect.learn`.
    """

    error: EndpointError
    retry: bool = False
    billed: bool = False
    wanted_s: float | None = None
    words: str = ""


def malformed(why: str) -> EndpointError:
    """A reply that is not in the chat-completions format."""
    return EndpointError(f"the endpoint does not speak the chat-completions format: {why}", hint="check base_url")


def withheld(why: str) -> EndpointError:
    """No answer because of what the picture or the question shows."""
    return EndpointError(f"the endpoint withheld its answer: {why}", hint="ask in other words, or use another model")


def shortened(text: str, key: str = "") -> str:
    """``text`` in one printable line of at most ``MAX_QUOTED`` characters, without ``key``."""
    line = " ".join(_without(text, key)[: 20 * MAX_QUOTED].split())
    line = line if len(line) <= MAX_QUOTED else line[: MAX_QUOTED - 3] + "..."
    return printable(line) if line else "no reason given"


def _without(text: str, key: str) -> str:
    return text.replace(key, "***") if key else text


def failure_of(error: Exception, config: EndpointConfig, key: str, attempts: int) -> Failure | None:
    """What ``error`` means, None where it is no failure of the endpoint's but a bug."""
    import openai

    after = f" after {attempts} attempts" if attempts > 1 else ""
    if isinstance(error, EndpointError):
        return Failure(type(error)(_without(error.message, key), hint=error.hint), billed=True)
    if isinstance(error, (OutOfTime, openai.APITimeoutError)):
        told = f"{config.base_url} did not answer within {config.timeout_s:g} s"
        return Failure(EndpointError(told, hint="raise timeout_s, or ask a faster model"), billed=True)
    if isinstance(error, Interrupted):
        told = f"the connection to {config.base_url} broke off{after}: {shortened(str(error), key)}"
        return Failure(EndpointError(told, hint="ask again"), retry=True, billed=True)
    if isinstance(error, openai.APIConnectionError):
        why = shortened(one_line(error.__cause__ or error), key)
        told = f"cannot reach {config.base_url}{after}: {why}"
        return Failure(EndpointError(told, hint="check base_url, and that the server runs"), retry=True)
    if isinstance(error, openai.APIStatusError):
        headers = error.response.headers
        wanted_s = retry_after(headers.get("retry-after-ms"), headers.get("retry-after"))
        error = ReportedError.of(error.body or error.response.text, error.status_code, wanted_s)
    if isinstance(error, ReportedError):
        return _reported(error, config, key, after)
    if isinstance(error, openai.OpenAIError):
        return Failure(EndpointError(f"the request failed: {shortened(str(error), key)}", hint="check the settings"))
    return None


def _reported(error: ReportedError, config: EndpointConfig, key: str, after: str) -> Failure:
    words = shortened(error.words, key)
    refused = _refused(error, config, words)
    if refused is not None:
        return Failure(refused, words=error.words)
    where, status = config.base_url, error.status
    if status == TOO_MANY:
        return _too_many(error, f"{where} limits how often it is asked{after}: {words}")
    if status is not None and (status in _RETRIED or status >= 500):
        told = EndpointError(f"{where} fails with status {status}{after}: {words}", hint="ask again later")
        return Failure(told, retry=True, wanted_s=_patient(error.wanted_s))
    shown = f" (status {status})" if status is not None else ""
    told = EndpointError(f"{where} rejects the request{shown}: {words}", hint=_setting_hint(words))
    return Failure(told, words=error.words)


def _too_many(error: ReportedError, told: str) -> Failure:
    """An endpoint that wants too long a pause is given up."""
    too_long = error.wanted_s is not None and error.wanted_s > MAX_RETRY_AFTER_S
    pause = f"; it wants a pause of {error.wanted_s:.0f} s" if too_long else ""
    failed = EndpointError(told + pause, hint="set requests_per_minute or tokens_per_minute, or ask again later")
    return Failure(failed, retry=not too_long, wanted_s=error.wanted_s)


def _patient(wanted_s: float | None) -> float | None:
    return None if wanted_s is None else min(wanted_s, MAX_RETRY_AFTER_S)


def _refused(error: ReportedError, config: EndpointConfig, words: str) -> EndpointError | None:
    """The failures that have a sentence of their own and that no further attempt mends."""
    status, code, low = error.status, error.code, error.words.lower()
    if status in (401, 403):
        key = f"the key in {config.api_key_env}" if config.api_key_env else "requests without a key"
        hint = f"set {config.api_key_env} anew" if config.api_key_env else "name the key's variable in api_key_env"
        verb = "does not accept" if status == 401 else "does not permit this to"
        return EndpointRefused(f"{config.base_url} {verb} {key} (status {status})", hint=hint)
    if code in _QUOTA_CODES or status == 402:
        return EndpointRefused(f"the quota at {config.base_url} is used up: {words}", hint="see to the account")
    if status == 404 or code == "model_not_found":
        told = f"{config.base_url} knows no model '{config.model}': {words}"
        return EndpointRefused(told, hint="check model and base_url (most end in /v1)")
    if code in _FILTER_CODES:
        return withheld(words)
    if status == 413 or any(part in code or part in low for part in _CONTEXT_WORDS):
        told = f"the request is too long for '{config.model}': {words}"
        return EndpointError(told, hint="lower image_side or max_tokens, or start a new conversation")
    return None


def _setting_hint(words: str) -> str:
    """The setting that an endpoint complains about, if it names one that can be left out."""
    if "logprobs" in words:
        return "set logprobs to false; answers then carry no P(yes)"
    if "temperature" in words:
        return "set temperature to null"
    return "check the model and the settings"
