"""The error tree: every failure a person can meet, with the next step and the exit code of the command line.

Each error says in one line *what* failed, *where* and *why*; ``hint`` says what to do next. The command line
prints exactly these two and leaves with ``exit_code``; anything that is not an ``AnomalyOVError`` is a bug (70).
"""

from __future__ import annotations


class AnomalyOVError(Exception):
    """Root of the tree. ``hint`` is the next step for the reader; ``exit_code`` the process's status."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(AnomalyOVError):
    """The request makes no sense as written: an unknown option value, an empty selection."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration field is unknown or out of range; names the field, the value and what is allowed."""


class DataError(UsageError):
    """A data set folder is not laid out as any layout we know, or lacks what the task needs."""


class LeakageError(DataError):
    """Training and test pictures overlap, by bytes or by sight."""


class ImageError(AnomalyOVError):
    """One picture could not be used; the rest of a run goes on."""

    exit_code = 3


class UnreadableImage(ImageError):
    """The bytes are missing, truncated or no picture that we decode."""


class ImageTooLarge(ImageError):
    """The file or its pixels exceed the limits set against decompression bombs."""


class WeightsError(AnomalyOVError):
    """A model's weights are missing or unusable."""

    exit_code = 4


class CheckpointMismatch(WeightsError):
    """A checkpoint's keys or shapes are not those of the model; names them."""


class ContextMismatch(WeightsError):
    """A context was made by another model than the one that is to use it; names both."""


class UnsafeCheckpoint(WeightsError):
    """A checkpoint holds something other than plain tensors, or is truncated; nothing of it was run."""


class MissingExtra(WeightsError):
    """An optional dependency is absent; the hint is the exact ``pip install`` line."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package '{package}', which is not installed",
            hint=f'pip install "anomaly-ov[{extra}]"',
        )


class DeviceError(AnomalyOVError):
    """The device is absent or out of memory."""

    exit_code = 5


class EndpointError(AnomalyOVError):
    """A remote model gave no usable answer to this question; the next one may be answered."""

    exit_code = 6


class EndpointRefused(EndpointError):
    """A remote model would refuse any further request as well: the key, the model's name, the quota or the settings."""


class SpendCapReached(EndpointRefused):
    """The next request could cost more than is left to spend; it was not sent."""
