"""The service against its own description: whatever ``/openapi.json`` allows, and much that it does not.

Schemathesis makes the requests: every boundary and every violation that it can derive of each operation, then random
ones. The path and what refers to stored pictures mostly name real ones, so that requests get past the first check.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.configuration
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from anomaly_ov.inspector import load
from serving_core_fixtures import png
from serving_live_fixtures import serving, until
from talk_fixtures import small_talker

pytestmark = [pytest.mark.fuzz, pytest.mark.slow]

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
    checks.allow_header_conformance,
]
# Their descriptions cannot say which strings are pictures, and which conversations end with a question.
NOT_ALL_IS_ACCEPTED = ("POST /v1/inspect", "POST /v1/batches/{batch}/pictures", "POST /v1/chat/completions")
# In a form everything is bytes, so that a file of a wrong type is none.
UPLOADS = ("POST /v1/inspect", "POST /v1/batches/{batch}/pictures", "POST /v1/batches")
RANDOM_REQUESTS = 6
QUIET = settings(
    max_examples=RANDOM_REQUESTS,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Target:
    """A running service with one scored picture, and what came of the requests to it."""

    def __init__(self, address: str, service: Any) -> None:
        self.address, self.service = address, service
        self.session = requests.Session()
        self.schema = schemathesis.openapi.from_url(f"{address}/openapi.json", timeout=60)
        self.batch = service.store.create_batch("real").id
        (item,) = self._post(f"/v1/batches/{self.batch}/pictures", png(40, 30))["items"]
        self.item = item["id"]
        until(lambda: service.store.batch(self.batch).state == "done")
        self.statuses: dict[str, Counter[int]] = {}
        self.failures: list[str] = []

    def _post(self, path: str, data: bytes) -> Any:
        answer = self.session.post(self.address + path, data, headers={"Content-Type": "image/png"})
        assert answer.status_code == 200
        return answer.json()

    def send(self, label: str, case: Any) -> None:
        """One request, and a line for each way in which its answer is not as described."""
        self._name_real_things(case)
        answer = case.call(base_url=self.address, session=self.session)
        self.statuses.setdefault(label, Counter())[answer.status_code] += 1
        held = [*CHECKS]
        if label not in NOT_ALL_IS_ACCEPTED:
            held.append(checks.positive_data_acceptance)
        if not (label in UPLOADS and case.media_type == "multipart/form-data"):
            held.append(checks.negative_data_rejection)
        try:
            case.validate_response(answer, checks=held)
        except* Exception as group:
            self.failures += [f"{label}: {error}" for error in group.exceptions]

    def _name_real_things(self, case: Any) -> None:
        wrong = {place.value for place, info in case.meta.components.items() if info.mode is GenerationMode.NEGATIVE}
        if "path" not in wrong:
            deleted = case.method == "DELETE" and "item" not in case.path_parameters
            batch = self.service.store.create_batch("to be deleted").id if deleted else self.batch
            real = {"batch": batch, "item": self.item, "name": "small"}
            case.path_parameters |= {name: real[name] for name in case.path_parameters}
        if "body" not in wrong and isinstance(case.body, dict):
            self._name_real_things_in(case.body)

    def _name_real_things_in(self, body: dict[str, Any]) -> None:
        if "items" in body:
            body["items"] = [self.item]
        for image in body.get("images") or ():
            if "data" in image:
                image["data"] = base64.b64encode(png()).decode()
        if "messages" in body:
            body["messages"] = [*body["messages"], {"role": "user", "content": "Is there a defect?"}]
            body["model"] = "small"
            asked = body.get("anomaly") or {}
            body["anomaly"] = asked | {"item": self.item} | ({"region": 0} if asked.get("region") else {})


@pytest.fixture(scope="module", autouse=True)
def _no_files_in_the_working_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    hypothesis.configuration.set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))
    yield
    hypothesis.configuration.set_hypothesis_home_dir(None)


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(str(small_talker(tmp_path_factory.mktemp("talker") / "model")), device="cpu")


@pytest.fixture
def target(inspector: Any, tmp_path: Path) -> Iterator[Target]:
    with serving(inspector, tmp_path / "data", max_answer_tokens=2, max_pictures=5) as (address, service):
        yield Target(address, service)


def test_every_boundary_and_every_violation(target: Target) -> None:
    for found in target.schema.get_all_operations():
        operation = found.ok()
        cases = target.schema.iter_coverage_cases(
            operation, generation_modes=list(GenerationMode), generation_config=target.schema.config.generation
        )
        for case in cases:
            target.send(operation.label, case)
    assert not target.failures, "\n\n".join(target.failures[:20])
    assert sum(map(Counter.total, target.statuses.values())) > 700
    for label, statuses in target.statuses.items():
        assert any(status < 300 for status in statuses), f"{label} was never reached: {statuses}"


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_random_requests(target: Target, mode: GenerationMode) -> None:
    for found in target.schema.get_all_operations():
        operation = found.ok()
        if operation.body or operation.query:  # else nothing could be wrong, and its boundaries are all that there is
            send_random(target, operation, mode)
    assert not target.failures, "\n\n".join(target.failures[:20])
    assert len(target.statuses) > 10
    assert target.session.get(f"{target.address}/healthz").json() == {"status": "ok"}


def send_random(target: Target, operation: Any, mode: GenerationMode) -> None:
    @QUIET
    @given(operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        target.send(operation.label, case)

    send()
