"""From a specification such as ``winclip:FOLDER`` to a detector. Imports torch only when a detector is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from anomaly_ov.errors import UsageError
from anomaly_ov.records import Detector

METHODS: Mapping[str, str] = {
    "clip": "clip:FOLDER           plain CLIP, one sentence per state; FOLDER in the layout of transformers",
    "clip-ensemble": "clip-ensemble:FOLDER  plain CLIP with WinCLIP's sentences",
    "winclip": "winclip:FOLDER        WinCLIP, zero-shot; published on ViT-B-16-plus-240",
    "anomalyclip": "anomalyclip:FOLDER    AnomalyCLIP; FOLDER made by 'anomaly-ov baselines convert-prompts'",
    "endpoint": "endpoint:MODEL@URL    any OpenAI-compatible model asked yes or no; or endpoint:settings.yaml",
}


def is_baseline(model: str) -> bool:
    """Whether ``model`` is a specification for ``load_baseline`` rather than a name or folder of ours."""
    method, colon, _ = model.partition(":")
    return bool(colon) and method in METHODS


def load_baseline(spec: str, device: str = "auto", dtype: str = "auto") -> Detector:
    """The method that ``spec`` names, ready to measure. Specifications: see ``METHODS``.

    ``device``, ``dtype``: of the vision tower, as in ``anomaly_ov.load``; an endpoint has its own. Raises UsageError
    for an unknown specification, ``WeightsError``, ``DeviceError``, and for an endpoint MissingExtra or ConfigError.
    """
    method, _, rest = spec.partition(":")
    if method not in METHODS or not rest.strip():
        hint = f"one of {', '.join(f'{name}:...' for name in METHODS)}"
        raise UsageError(f"'{spec}' is no baseline, or lacks what comes after the colon", hint=hint)
    if method == "endpoint":
        from anomaly_ov_lab.baselines.endpoint import EndpointDetector, endpoint_config

        return EndpointDetector(endpoint_config(rest))
    makers: dict[str, Callable[[Path, str, str], Detector]] = {
        "clip": _clip,
        "clip-ensemble": _clip_ensemble,
        "winclip": _winclip,
        "anomalyclip": _anomaly_clip,
    }
    return makers[method](Path(rest).expanduser(), device, dtype)


def told(detector: Detector, objects: Mapping[str, str]) -> Detector:
    """``detector``, told what pictures show (category by source id) where it can use that, else itself."""
    return detector.with_objects(objects) if hasattr(detector, "with_objects") else detector


def _clip(folder: Path, device: str, dtype: str) -> Detector:
    from anomaly_ov_lab.baselines.clip import ClipJudge
    from anomaly_ov_lab.baselines.clip_towers import load_towers
    from anomaly_ov_lab.baselines.detector import ClipDetector

    return ClipDetector(ClipJudge(load_towers(folder, device, dtype)))


def _clip_ensemble(folder: Path, device: str, dtype: str) -> Detector:
    from anomaly_ov_lab.baselines.clip import ClipConfig, ClipJudge
    from anomaly_ov_lab.baselines.clip_towers import load_towers
    from anomaly_ov_lab.baselines.detector import ClipDetector

    return ClipDetector(ClipJudge(load_towers(folder, device, dtype), ClipConfig(sentences="ensemble")))


def _winclip(folder: Path, device: str, dtype: str) -> Detector:
    from anomaly_ov_lab.baselines.clip_towers import load_towers
    from anomaly_ov_lab.baselines.detector import ClipDetector
    from anomaly_ov_lab.baselines.winclip import WinClipJudge

    return ClipDetector(WinClipJudge(load_towers(folder, device, dtype)))


def _anomaly_clip(folder: Path, device: str, dtype: str) -> Detector:
    from anomaly_ov_lab.baselines.anomaly_clip import AnomalyClipJudge
    from anomaly_ov_lab.baselines.clip_towers import load_towers
    from anomaly_ov_lab.baselines.detector import ClipDetector
    from anomaly_ov_lab.baselines.learned_prompts import read_config, read_prompts

    config = read_config(folder)
    towers = load_towers(config.clip, device, dtype)
    return ClipDetector(AnomalyClipJudge(towers, read_prompts(folder, towers), config))
