"""Configuration of the language side of a model folder (``language/config.json``, Hugging Face layout)."""

from __future__ import annotations

from typing import Any, Literal, get_args

from transformers import AutoConfig, LlavaOnevisionConfig

from anomaly_ov.errors import ConfigError
from anomaly_ov.records import LEVEL_BOUNDS, Level, level_of

Reading = Literal["full", "focus", "highlight"]
READINGS: tuple[Reading, ...] = get_args(Reading)
ADVERBS: tuple[Level, ...] = get_args(Level)


def prompt_text(adverb: str) -> str:
    """The sentence before the anomaly tokens, as released (docs/reference-implementation.md, section 6).

    The trailing blank belongs to it.
    """
    return f"with {adverb} suspicious features: "


class AnomalyOVConfig(LlavaOnevisionConfig):  # type: ignore[misc]
    """A LLaVA-OneVision configuration plus how the expert's findings are put to the language model.

    ``prompt_ids``: adverb -> ids of ``prompt_text``, taken from the model's own tokenizer, equally many for each.
    ``level_bounds``: below the first "slightly", below the second "moderately", else "highly" (golden ``fusion/``).
    ``level_score``: whether ``head`` (the paper) or ``fused``, the calibrated score, is compared.
    ``reading``: which tokens of a picture are read (``layout``), ``crop_budget``: how many crop tokens ``highlight``
    keeps; ``focus_pool``: in ``focus`` and ``highlight`` the base view is read in blocks of so many cells a side, each
    the mean of its cells weighted by the expert's map. ``max_views``: stitched crops holding more tokens than so many
    views are reduced. ``annotate``: adds to each image token where it lies and how suspicious the expert finds it
    (``annotation``); off in the released model.
    ``detector_revision``: of the detector that this language side learnt to read; empty = any.
    """

    model_type = "anomaly_ov"

    prompt_ids: dict[str, Any] | None = None
    level_bounds: list[float] | None = None
    level_score: str = "head"
    reading: str = "full"
    crop_budget: int = 96
    focus_pool: int = 1
    max_views: int = 9
    annotate: bool = False
    detector_revision: str = ""

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.level_bounds = list(LEVEL_BOUNDS) if self.level_bounds is None else self.level_bounds
        if self.reading not in READINGS:
            raise ConfigError(f"reading = {self.reading!r} is unknown", hint=f"one of: {', '.join(READINGS)}")
        if self.level_score not in ("head", "fused"):
            raise ConfigError(f"level_score = {self.level_score!r} is unknown", hint="one of: head, fused")
        if len(self.level_bounds) != 2 or not 0 <= self.level_bounds[0] <= self.level_bounds[1] <= 1:
            raise ConfigError(f"level_bounds = {self.level_bounds} must be two rising values in 0..1", hint="fix it")
        if self.crop_budget < 0 or min(self.max_views, self.focus_pool) < 1:
            raise ConfigError(
                "crop_budget must be >= 0, max_views and focus_pool >= 1", hint="fix language/config.json"
            )
        if self.prompt_ids is not None:
            self._check_prompts(self.prompt_ids)

    @property
    def prompt_length(self) -> int:
        """Tokens of the indicative prompt, the same for every adverb."""
        return len(self.prompts[0])

    @property
    def prompts(self) -> tuple[list[int], ...]:
        """Ids of the indicative prompt by rising suspicion. Raises ``ConfigError`` when no tokenizer gave them yet."""
        if self.prompt_ids is None:
            raise ConfigError("prompt_ids are not set", hint="take them from the tokenizer: prompt_ids_of(tokenizer)")
        return tuple(self.prompt_ids[adverb] for adverb in ADVERBS)

    def level(self, score: float) -> int:
        """0, 1 or 2 for slightly, moderately, highly."""
        assert self.level_bounds is not None
        return ADVERBS.index(level_of(score, self.level_bounds))

    @staticmethod
    def _check_prompts(prompt_ids: dict[str, Any]) -> None:
        lengths = {adverb: len(prompt_ids.get(adverb, ())) for adverb in ADVERBS}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise ConfigError(
                f"prompt_ids must hold equally many ids for each adverb, not {lengths}",
                hint="the tokenizer must spell the three adverbs in equally many tokens",
            )


# So that a tokenizer or a trainer that meets this config.json knows its type.
AutoConfig.register(AnomalyOVConfig.model_type, AnomalyOVConfig, exist_ok=True)


def prompt_ids_of(tokenizer: Any) -> dict[str, list[int]]:
    """``prompt_ids`` of a tokenizer. Raises ``ConfigError`` when the adverbs take unequally many tokens."""
    found: dict[str, list[int]] = {
        adverb: tokenizer.encode(prompt_text(adverb), add_special_tokens=False) for adverb in ADVERBS
    }
    AnomalyOVConfig._check_prompts(found)
    return found
