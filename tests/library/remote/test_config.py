"""The endpoint's configuration: every field's range, and no secrets where they would be shown."""

from __future__ import annotations

from typing import Any

import pytest

from anomaly_ov.configuration import parse, to_mapping
from anomaly_ov.errors import ConfigError
from anomaly_ov.remote.config import EndpointConfig

URL = "http://localhost:11434/v1"


def test_defaults_are_careful() -> None:
    config = EndpointConfig(URL, "m")
    assert (config.draw_overlay, config.crop_top_region, config.temperature) == (False, False, 0.0)
    assert parse(EndpointConfig, to_mapping(config)) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", " "),
        ("api_key_env", "sk-secret"),
        ("timeout_s", 0),
        ("timeout_s", float("nan")),
        ("timeout_s", float("inf")),
        ("retries", -1),
        ("retries", 21),
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("requests_per_minute", 0),
        ("tokens_per_minute", 0),
        ("spend_cap", 0),
        ("spend_cap", 1.0),  # without prices
        ("price_in", -1),
        ("price_out", float("inf")),
        ("image_side", 63),
        ("image_side", 8193),
    ],
)
def test_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field.split("_")[0]) as caught:
        EndpointConfig(**({"base_url": URL, "model": "m"} | {field: value}))
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000/v1",
        "ftp://host/v1",
        "http://",
        "http://host:port/v1",
        "http://host:0/v1",
        "http://[::1/v1",
        "http://host/a b",
        "http://host/\n",
        "https://user:secret@host/v1",
        "https://host/v1?key=secret",
        "https://host/v1#secret",
        "https://host/v1/chat/completions",
        "https://host/v1/chat/completions/",
    ],
)
def test_addresses_that_will_not_do(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        EndpointConfig(url, "m")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "http://[::1]:8000/v1/", "http://10.0.0.1:1/x"])
def test_addresses_that_will(url: str) -> None:
    assert EndpointConfig(url, "m", api_key_env="").base_url == url


def test_read_from_a_mapping() -> None:
    with pytest.raises(ConfigError, match="key"):
        parse(EndpointConfig, {"base_url": URL, "model": "m", "api_key": "sk-1"})
    with pytest.raises(ConfigError, match="spend_cap needs price_in"):
        parse(EndpointConfig, {"base_url": URL, "model": "m", "spend_cap": 2})
