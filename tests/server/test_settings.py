from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anomaly_ov.errors import ConfigError
from anomaly_ov_server.settings import ServeSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_pictures": 0},
        {"batch_size": -1},
        {"request_seconds": 0},
        {"port": 70_000},
        {"token": " "},
        {"token": "ü"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        ServeSettings(data=Path("x"), **wrong)
    assert next(iter(wrong)) in error.value.message


def test_defaults_listen_to_this_machine_alone() -> None:
    settings = ServeSettings(data=Path("x"))
    assert (settings.host, settings.token, settings.remote_images) == ("127.0.0.1", None, False)
    assert (settings.limits.max_bytes, settings.limits.max_pixels) == (32 * 2**20, 100_000_000)


@pytest.mark.parametrize(("host", "any_"), [("0.0.0.0", True), ("::", True), ("127.0.0.1", False), ("name", False)])
def test_any_address(host: str, any_: bool) -> None:
    assert ServeSettings(data=Path("x"), host=host).any_address is any_
