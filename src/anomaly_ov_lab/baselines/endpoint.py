"""Any model behind an OpenAI-compatible endpoint, asked yes or no about each picture, as a ``records.Detector``.

It sees the picture and the question alone, nothing of what our detector found.
Score: P(yes) / (P(yes) + P(no)) of the first answer token where the endpoint gives probabilities; else 1 or 0 by the
answer's first word, whole. An answer that is neither becomes an error of that picture and enters no figure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from anomaly_ov.configuration import parse, read_yaml, to_mapping
from anomaly_ov.errors import AnomalyOVError, EndpointError, EndpointRefused, ImageError, UsageError
from anomaly_ov.images.messages import printable
from anomaly_ov.images.read import Limits
from anomaly_ov.images.sources import Source, sources_of
from anomaly_ov.records import Answer, ErrorInfo, Finding, ImageInfo, ModelInfo, Threshold
from anomaly_ov.remote.config import EndpointConfig
from anomaly_ov.remote.endpoint import REAL_CLOCK, Endpoint
from anomaly_ov.remote.limits import Clock, in_order
from anomaly_ov.remote.pictures import shrunk
from anomaly_ov_lab.instruct.reading import yes_no

QUESTION = "Are there any defects for the object in the image? Please reply with 'Yes' or 'No'."
"""The detection question of VisA-D&R (docs/reference-implementation.md, section 9)."""
THRESHOLD = Threshold(0.5, "yes is likelier than no")
MAX_TOKENS = 32
_LOCAL = ("localhost", "127.0.0.1", "::1")
_SHOWN = 60


class EndpointDetector:
    """One remote model asked one question. Raises what ``remote.Endpoint`` raises: MissingExtra, UsageError."""

    def __init__(
        self,
        config: EndpointConfig,
        question: str = QUESTION,
        *,
        clock: Clock = REAL_CLOCK,
        limits: Limits | None = None,
    ) -> None:
        if not question.strip():
            raise UsageError("the question is empty", hint="ask something that takes yes or no")
        self._endpoint = Endpoint(config, clock=clock)
        self._question, self._limits = question.strip(), limits or Limits()
        self._info = ModelInfo(
            name=f"{config.model} at {urlsplit(config.base_url).netloc}",
            revision=_revision(config, self._question),
            device="remote",
            dtype="unknown",
        )

    @property
    def info(self) -> ModelInfo:
        """The model's name and host; the revision tells questions and settings apart, not the weights behind them."""
        return self._info

    @property
    def spent(self) -> float:
        """What the requests cost so far, in the configuration's currency."""
        return self._endpoint.spent

    def stream(self, sources: Iterable[Any], batch_size: int = 8) -> Iterator[Finding]:
        """One finding per picture, in order, without a map. ``batch_size``: requests under way at once.

        A picture that cannot be read, or that the endpoint gives no usable answer to, yields a finding with ``error``
        set. Raises ``EndpointRefused`` where the endpoint would refuse all others as well.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size = {batch_size} must be >= 1", hint="8 is a good start")
        yield from in_order(self._judge, sources_of(sources), batch_size)

    def _judge(self, source: Source) -> Finding:
        try:
            picture = source.read(self._limits)
        except ImageError as error:
            named = str(source.item) if isinstance(source.item, (str, Path)) else source.id
            return self._failed(source, ImageInfo(named), error)
        image = ImageInfo(picture.path, picture.width, picture.height, picture.sha256)
        try:
            shown = shrunk(picture.pixels_HW3, self._endpoint.config.image_side)
            answer = self._endpoint.say(self._question, shown)
            score = score_of(answer)
        except EndpointRefused:
            raise
        except EndpointError as error:
            return self._failed(source, image, error)
        return Finding(
            id=source.id,
            image=image,
            model=self._info,
            score_raw=score,
            score=score,
            threshold=THRESHOLD,
            anomalous=score >= THRESHOLD.value,
            answer=answer,
            timing_ms=dict(answer.timing_ms),
        )

    def _failed(self, source: Source, image: ImageInfo, error: AnomalyOVError) -> Finding:
        info = ErrorInfo(type(error).__name__, error.message, error.hint)
        return Finding(source.id, image, self._info, error=info)


def score_of(answer: Answer) -> float:
    """P(yes) of an answer, 0..1, or 1 / 0 by its first word. Raises ``EndpointError`` where it says neither."""
    if answer.p_yes is not None:
        return answer.p_yes
    said = yes_no(answer.text)
    if said is None:
        shown = printable(" ".join(answer.text.split())[:_SHOWN])
        raise EndpointError(
            f"the model answered neither yes nor no: {shown}",
            hint="ask in other words, raise max_tokens, or use another model",
        )
    return float(said)


def endpoint_config(text: str) -> EndpointConfig:
    """``MODEL@URL``, or the path of a YAML file with the fields of ``EndpointConfig``.

    With ``MODEL@URL`` the key is in OPENAI_API_KEY, and none is wanted by a server on this machine. Raises
    ``UsageError`` or ``ConfigError``.
    """
    if text.endswith((".yaml", ".yml")):
        return parse(EndpointConfig, {"max_tokens": MAX_TOKENS} | read_yaml(Path(text)), text)
    model, _, url = text.rpartition("@")
    if not model or not url:
        raise UsageError(f"endpoint:{printable(text)} names no model and address", hint=_EXAMPLE)
    try:
        key = "" if urlsplit(url).hostname in _LOCAL else "OPENAI_API_KEY"
        return EndpointConfig(url, model, key, max_tokens=MAX_TOKENS)
    except ValueError as error:
        raise UsageError(f"endpoint:{printable(text)}: {error}", hint=_EXAMPLE) from None


_EXAMPLE = "for example endpoint:llava:7b@http://localhost:11434/v1, or endpoint:settings.yaml"


def _revision(config: EndpointConfig, question: str) -> str:
    """Of what answers depend on: not of the key's name, waits, limits and prices."""
    kept = ("base_url", "model", "max_tokens", "temperature", "image_side", "logprobs")
    values = {name: value for name, value in to_mapping(config).items() if name in kept}
    text = json.dumps(values | {"question": question}, sort_keys=True)
    return f"asked-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
