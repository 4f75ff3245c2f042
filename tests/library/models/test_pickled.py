"""Reading other people's checkpoints; hostile, torn and huge files are in test_convert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from anomaly_ov.errors import AnomalyOVError, CheckpointMismatch, WeightsError
from anomaly_ov.models.fetching import sha256_of
from anomaly_ov.models.pickled import read_tensors, require_numbers

ONE, TWO = torch.arange(3.0), torch.ones(2, 2, dtype=torch.float16)


@pytest.mark.parametrize(("content", "entry"), [
    ({"a": ONE, "b": TWO}, None),
    ({"a": ONE, "b": TWO}, "learner"),
    ({"module.a": ONE, "module.b": TWO}, None),
    ({"state_dict": {"a": ONE, "b": TWO}, "epoch": 3}, None),
    ({"learner": {"a": ONE, "b": TWO}, "other": {}}, "learner"),
    ({"state_dict": {"learner": {"module.a": ONE, "module.b": TWO}}}, "learner"),
])  # fmt: skip
def test_tensors_are_found_wherever_they_lie(tmp_path: Path, content: Any, entry: str | None) -> None:
    torch.save(content, tmp_path / "a.pth")
    found = read_tensors(tmp_path / "a.pth", 10**6, entry)
    assert list(found) == ["a", "b"]
    assert torch.equal(found["a"], ONE)
    assert found["b"].dtype == torch.float16


def test_safetensors_under_the_same_limit(tmp_path: Path) -> None:
    save_file({"a": ONE}, tmp_path / "a.safetensors")
    assert torch.equal(read_tensors(tmp_path / "a.safetensors", 1000)["a"], ONE)
    with pytest.raises(WeightsError, match="more than the 10 it may"):
        read_tensors(tmp_path / "a.safetensors", 10)


def test_a_prefix_of_some_names_stays(tmp_path: Path) -> None:
    torch.save({"module.a": ONE, "b": TWO}, tmp_path / "a.pth")
    assert list(read_tensors(tmp_path / "a.pth", 10**6)) == ["module.a", "b"]


def test_another_file_than_was_expected_gets_the_callers_hint(tmp_path: Path) -> None:
    def hint(content: Any, max_bytes: int = 10**6) -> str:
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(AnomalyOVError) as caught:
            read_tensors(tmp_path / "a.pth", max_bytes, hint="is it the blue one?")
        return str(caught.value.hint)

    assert hint([ONE]) == hint({"a": 3}) == hint({"a": ONE}, 100) == "is it the blue one?"


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    require_numbers(tmp_path, {"a": ONE, "b": TWO, "count": torch.ones(1, dtype=torch.int64)})
    with pytest.raises(CheckpointMismatch, match="1 tensors are not finite, such as b"):
        require_numbers(tmp_path, {"a": ONE, "b": TWO / 0})


def test_sha256_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
