"""The load benchmark on a random model for a moment, and its malformed requests against the whole application."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from model_fixtures import save_small_model
from serving_core_fixtures import client_of, png


@pytest.mark.slow
def test_it_measures_everything_and_writes_it_down(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import common

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(benchmark, "OVERLOAD_CLIENTS", 24)
    folder = save_small_model(tmp_path / "model")
    benchmark.main(model=str(folder), seconds=1.0, rounds=1, requests=20, count=6, seed=0, write=True)
    measured = json.loads((tmp_path / "results" / "serve-load.json").read_text())["measured"]
    values = {name: row["value"] for name, row in measured.items()}
    assert values["throughput, service / stream"] > 0
    assert values["latency, p95 / one direct inspection"] > 0
    assert values["overload, other statuses"] == 0
    assert values["bad input, failures of the service"] == 0
    assert values["bad input, leaks"] == 0
    assert values["bad input, alive"] == "True"
    assert values["exit status after SIGTERM"] == 0


def test_malformed_requests_are_the_same_every_time_and_harm_nothing(benchmark: Any, tmp_path: Path) -> None:
    from malformed import malformed

    requests = list(malformed(200, 1))
    assert requests == list(malformed(200, 1))
    assert requests != list(malformed(200, 2))
    statuses: Counter[int] = Counter()
    with client_of(tmp_path) as client:
        for request in requests:
            if request.raw is not None:
                continue
            headers = {name: value.encode("latin-1") for name, value in request.headers.items()}
            answer = client.request(request.method, request.path, headers=headers, content=request.body)
            statuses[answer.status_code] += 1
            told = answer.text.replace(request.path, "").encode()
            assert answer.status_code < 500, (request, answer.text)
            assert answer.status_code == 200 or not benchmark.LEAKS.search(told), (request, answer.text)
        sound = client.post("/v1/inspect", content=png(), headers={"Content-Type": "image/png"})
        assert sound.status_code == 200
    assert sum(count for status, count in statuses.items() if status >= 400) > 150
