"""Which endpoint is asked, how patiently, at what price, and what of a picture it is shown. Holds no secret."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

MIN_IMAGE_SIDE, MAX_IMAGE_SIDE = 64, 8192


@dataclass(frozen=True)
class EndpointConfig:
    """One model behind one OpenAI-compatible endpoint, and the limits it is asked within.

    ``base_url``: up to and without ``/chat/completions``, for example ``http://localhost:11434/v1``.
    ``api_key_env``: the environment variable that holds the key; empty for servers that want none.
    ``timeout_s``: seconds for connecting, for a whole answer, and, of a streamed one, between two pieces.
    ``retries``: further attempts after "too many requests", a server's own error or no connection.
    ``max_tokens``: longest answer. ``temperature``: None leaves it to the endpoint.
    ``requests_per_minute``, ``tokens_per_minute``: None = as fast as the endpoint answers. Tokens are estimated.
    ``spend_cap``: most that one ``Endpoint`` may spend, in the currency of ``price_in`` and ``price_out``, which are
    per million tokens.
    ``crop_top_region``: send an enlarged crop of the most suspicious region as well.
    ``draw_overlay``: draw the regions' boxes on the picture; see ``prompt`` for why not.
    ``image_side``: longest side of a picture that is sent, in pixels.
    ``logprobs``: ask for token probabilities, which ``Answer.p_yes`` is made from.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = 60.0
    retries: int = 3
    max_tokens: int = 400
    temperature: float | None = 0.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    spend_cap: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    crop_top_region: bool = False
    draw_overlay: bool = False
    image_side: int = 1024
    logprobs: bool = True

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        if not self.model.strip():
            raise ValueError("model must name the endpoint's model")
        if not re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)?", self.api_key_env):
            # Not repeated here: it may well be the key itself, set in the wrong field.
            raise ValueError("api_key_env must be the name of an environment variable, or empty")
        if not (0 < self.timeout_s < math.inf and 0 <= self.retries <= 20 and self.max_tokens >= 1):
            raise ValueError("timeout_s must be > 0, retries within 0..20 and max_tokens >= 1")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise ValueError("temperature must lie within 0..2")
        if any(limit is not None and limit < 1 for limit in (self.requests_per_minute, self.tokens_per_minute)):
            raise ValueError("requests_per_minute and tokens_per_minute must be >= 1")
        if not MIN_IMAGE_SIDE <= self.image_side <= MAX_IMAGE_SIDE:
            raise ValueError(f"image_side must lie within {MIN_IMAGE_SIDE}..{MAX_IMAGE_SIDE}")
        self._check_prices()

    def _check_prices(self) -> None:
        if not (0 <= self.price_in < math.inf and 0 <= self.price_out < math.inf):
            raise ValueError("price_in and price_out must be >= 0")
        if self.spend_cap is None:
            return
        if not 0 < self.spend_cap < math.inf:
            raise ValueError("spend_cap must be > 0")
        if self.price_in == 0 and self.price_out == 0:
            raise ValueError("spend_cap needs price_in and price_out (per million tokens)")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or not url.isprintable() or " " in url:
        raise ValueError("base_url must be an http or https address such as http://localhost:11434/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        # Such an address is shown in errors, so it may hold no secret.
        raise ValueError("base_url must hold no user name, password, query or fragment; keys go into api_key_env")
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise ValueError("base_url must end before /chat/completions")
