"""How requests are worded."""

from __future__ import annotations

from anomaly_ov.remote.config import EndpointConfig
from anomaly_ov.remote.endpoint import Dialect

MESSAGES = [{"role": "user", "content": "Is it broken?"}]
URL = "http://localhost/v1"


def test_all_fields() -> None:
    body = Dialect(EndpointConfig(URL, "m")).body(MESSAGES, stream=True)
    assert body == {
        "model": "m",
        "messages": MESSAGES,
        "max_tokens": 400,
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": 20,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_what_is_not_wanted_is_not_sent() -> None:
    body = Dialect(EndpointConfig(URL, "m", temperature=None, logprobs=False)).body(MESSAGES, stream=False)
    assert body.keys() == {"model", "messages", "max_tokens"}


def test_it_learns_what_loses_nothing_once() -> None:
    dialect = Dialect(EndpointConfig(URL, "m"))
    sent = dialect.body(MESSAGES, stream=True)
    complaint = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    assert dialect.learn(complaint, sent)
    sent = dialect.body(MESSAGES, stream=True)
    assert sent["max_completion_tokens"] == 400
    assert "max_tokens" not in sent
    assert not dialect.learn(complaint, sent)
    assert dialect.learn("unknown field stream_options", sent)
    sent = dialect.body(MESSAGES, stream=True)
    assert "stream_options" not in sent
    assert not dialect.learn("unknown field stream_options", sent)
    assert dialect.learn("'logprobs' is not supported", sent)
    sent = dialect.body(MESSAGES, stream=True)
    assert not {"logprobs", "top_logprobs"} & sent.keys()
    assert not dialect.learn("'logprobs' is not supported", sent)


def test_it_does_not_change_what_is_asked() -> None:
    dialect = Dialect(EndpointConfig(URL, "m"))
    sent = dialect.body(MESSAGES, stream=False)
    for complaint in ("max_tokens is too large", "temperature must be 1", ""):
        assert not dialect.learn(complaint, sent)
    assert dialect.body(MESSAGES, stream=False) == sent
