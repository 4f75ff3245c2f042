"""What an operator decides about the service: where it listens, whom it answers, how much it takes."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, fields
from pathlib import Path

from anomaly_ov.errors import ConfigError
from anomaly_ov.images.read import Limits


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """``data``: the folder that batches, findings and decisions live in. Sizes are in bytes, times in seconds.

    ``allowed_hosts``: further names under which the service may be addressed. ``max_pictures``: per request.
    ``max_waiting``: pictures that wait for the networks before further requests are refused. ``request_seconds``: until
    an answer begins. ``remote_images``: whether pictures may be fetched from the web. Raises ``ConfigError``.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    max_picture_bytes: int = 32 * 2**20
    max_picture_pixels: int = 100_000_000
    max_pictures: int = 64
    max_request_bytes: int = 256 * 2**20
    max_waiting: int = 64
    batch_size: int = 8
    request_seconds: float = 120
    remote_images: bool = False
    max_answer_tokens: int = 400

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.startswith(("max_", "batch_", "request_")) and value <= 0:
                raise ConfigError(f"{field.name} = {value} must be > 0", hint="leave it out for the default")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port = {self.port} must be 0..65535", hint="0 takes any free port")
        if self.token is not None and (not self.token.strip() or not self.token.isascii()):
            raise ConfigError("the token is empty or holds other than ASCII characters", hint="16 letters or more")

    @property
    def limits(self) -> Limits:
        """What one picture may hold, as the reader of pictures takes it."""
        return Limits(max_bytes=self.max_picture_bytes, max_pixels=self.max_picture_pixels)

    @property
    def any_address(self) -> bool:
        """Whether the service listens on every address of the machine."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False
