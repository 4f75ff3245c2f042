"""Every failure becomes the one error object, and tells nothing of the inside."""

from __future__ import annotations

import logging

import pytest
from starlette.exceptions import HTTPException

from anomaly_ov import errors
from anomaly_ov_server.faults import RESPONSES, Fault, fault_of


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.UnreadableImage("m", hint="h"), 422, "unreadable_image"),
        (errors.ImageTooLarge("m", hint="h"), 413, "image_too_large"),
        (errors.UsageError("m", hint="h"), 422, "usage_error"),
        (errors.ContextMismatch("m", hint="h"), 409, "context_mismatch"),
        (errors.DeviceError("m", hint="h"), 503, "device_error"),
    ],
)
def test_errors_of_ours_keep_message_and_hint(error: Exception, status: int, kind: str) -> None:
    fault = fault_of(error)
    assert (fault.status, fault.type, fault.message, fault.hint) == (status, kind, "m", "h")
    assert fault.to_json()["error"]["code"] == kind


@pytest.mark.parametrize("error", [RuntimeError("/home/x"), errors.WeightsError("/home/x"), KeyError("/home/x")])
def test_what_is_the_services_own_is_logged_and_not_told(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        fault = fault_of(error)
    assert (fault.status, fault.type) == (500, "internal")
    assert "/home/x" not in str(fault.to_json())
    assert "/home/x" in caplog.text
    assert fault.message != fault_of(error).message, "incidents can be told apart"


def test_statuses_of_the_framework() -> None:
    assert fault_of(HTTPException(404)).type == "not_found"
    odd = fault_of(HTTPException(418, "two\nlines", {"X-A": "b"}))
    assert (odd.status, odd.type, odd.message, odd.headers) == (418, "bad_request", "two lines", {"X-A": "b"})


def test_odd_characters_do_not_break_the_answer() -> None:
    response = Fault(422, "x", "bad \ud800 \u2028 name", param="\udcff", retry_after=3).response()
    assert bytes(response.body).isascii()
    assert response.headers["retry-after"] == "3"
    assert fault_of(Fault(400, "x", "y")).status == 400


def test_every_status_that_a_fault_can_have_is_documented() -> None:
    for error in (errors.UsageError("m"), errors.ImageTooLarge("m"), errors.EndpointError("m"), ValueError("m")):
        assert fault_of(error).status in RESPONSES
    assert {400, 401, 403, 404, 405, 413, 415, 422, 429, 500, 503} <= RESPONSES.keys()
