"""A projector whose input is standardised and whose output is as large as words are; the same for the annotation.

A convolutional encoder's features are positive and share a large mean: of a token's norm most is what all tokens have
in common, and where the token lies and how suspicious it is, which the annotation says at the size of a word, is
drowned. Training finds its way out of that only slowly. So mean and deviation of each channel, measured on generated
pictures, are folded into the first layer, and both outputs begin at one size. No module and no figure of the
configuration changes: only where the weights start.

Legend: S tokens, D width of the features, H hidden, E width of the language model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from anomaly_ov.images.views import anyres
from anomaly_ov.reasoning.annotation import remarks
from anomaly_ov.reasoning.model import AnomalyOV
from anomaly_ov_lab.data.synthetic import generate, normal

PICTURES = 160
SIZE = 256
AT_ONCE = 16
FEATURE_RMS, ANNOTATION_RMS = 0.2, 0.4
"""Of a projected token's values, and of its annotation's; those of a trained compact model's words are at 0.1."""
LEAST_DEVIATION = 1e-3


@torch.no_grad()
def standardise(model: AnomalyOV, seed: int = 0) -> None:
    """Begins projector and annotation anew, in place. Needs the detector; ``seed`` of the weights."""
    parts = model.model
    features_SD, remarks_S3 = _measured(model)
    random = torch.Generator().manual_seed(seed)
    projector = parts.multi_modal_projector
    mean_D, deviation_D = features_SD.mean(0), features_SD.std(0).clamp_min(LEAST_DEVIATION)
    weight_HD = _random(projector.linear_1, random) / deviation_D
    projector.linear_1.weight.copy_(weight_HD)
    projector.linear_1.bias.copy_(-weight_HD @ mean_D)
    _centre(projector.linear_2, projector.act(projector.linear_1(features_SD)), FEATURE_RMS, random)
    if parts.annotation is not None:
        annotation = parts.annotation
        annotation.linear_1.weight.copy_(_random(annotation.linear_1, random))
        annotation.linear_1.bias.zero_()
        _centre(annotation.linear_2, annotation.hidden(remarks_S3), ANNOTATION_RMS, random)


def _centre(layer: nn.Linear, hidden_SH: Tensor, rms: float, random: torch.Generator) -> None:
    """Random weights that give outputs of mean 0 and root mean square ``rms``."""
    weight_EH = _random(layer, random)
    output_SE = hidden_SH @ weight_EH.T
    scale = rms / (output_SE - output_SE.mean(0)).square().mean().sqrt()
    layer.weight.copy_(weight_EH * scale)
    layer.bias.copy_(-output_SE.mean(0) * scale)


def _random(layer: nn.Linear, random: torch.Generator) -> Tensor:
    """Weights under which inputs of deviation 1 give outputs of deviation 1."""
    return torch.randn(layer.weight.shape, generator=random) / math.sqrt(layer.in_features)


def _measured(model: AnomalyOV) -> tuple[Tensor, Tensor]:
    """Base view features (S, D) and remarks (S, 3) of generated pictures, every second one anomalous."""
    detector = model.model.detector
    assert detector is not None
    features, said = [], []
    for start in range(0, PICTURES, AT_ONCE):
        seeds = range(start, start + AT_ONCE)
        views = [
            anyres((generate if seed % 2 else normal)(seed, SIZE).image_HW3, detector.config.views) for seed in seeds
        ]
        pixels = torch.cat([torch.from_numpy(one.pixels_NHW3) for one in views])
        for evidence in model.model.look(pixels, [one.geometry for one in views]):
            features.append(evidence.final_NPD[0].float())
            said.append(torch.cat(remarks(evidence)))
    return torch.cat(features), torch.cat(said)
