"""What stands in for ``Tracker`` in all processes of a run but the first: says and writes nothing."""

from __future__ import annotations

from types import TracebackType

from torch import Tensor


class Quiet:
    """The tracker's interface, without a file or a bar."""

    def __init__(self) -> None:
        self.window: dict[str, float] = {}

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def say(self, text: str) -> None:
        """Nothing."""

    def log(self, step: int, losses: dict[str, Tensor], rate: float) -> None:
        """Nothing."""
