"""A CLIP folder (transformers' layout) as the baselines use it: sentences and patches to one space, step by step.

What it is told about an object is two sentences, or a compositional ensemble: every state in every template (WinCLIP,
arXiv 2303.14814, section 4.1; lists: its appendix A), 7 x 22 normal and 4 x 22 anomalous sentences.

The vision tower is taken apart (``embed``, ``run``, ``project``) because WinCLIP runs it on windows of tokens and
AnomalyCLIP changes its attention. The text tower stays in float32, since it runs once per object.

Shapes: B pictures, S side of the square, T tokens (class token first), P = h w patches, D width, E joint width,
K sentences.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly_ov.errors import CheckpointMismatch, ConfigError, WeightsError
from anomaly_ov.models.backbones import CLIP_STATISTICS
from anomaly_ov.models.device import resolve_device, resolve_dtype
from anomaly_ov.models.folder import digest

HINT = "give the folder of a CLIP in the layout of transformers: config.json, *.safetensors and the tokenizer's files"
SENTENCES_PER_FORWARD = 64
MAX_CONFIG_BYTES = 2**20


class ClipTowers:
    """Both towers on one device. ``folder`` names it, ``revision`` tells its weights apart (12 hex digits)."""

    def __init__(self, folder: Path, model: Any, tokenizer: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.folder, self.revision = folder, _revision(folder)
        self.device, self.dtype = device, dtype
        self.text = model.text_model.to(device).eval()
        self.vision = model.vision_model.to(device, dtype).eval()
        self.text_projection = model.text_projection.to(device)
        self.visual_projection = model.visual_projection.to(device, dtype)
        self.tokenizer = tokenizer
        self.temperature = float(torch.exp(-model.logit_scale.detach()))
        mean, std = _statistics(folder)
        self._states: dict[Prompts, Tensor] = {}
        self._mean = torch.tensor(mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(std, device=device).view(3, 1, 1)

    @property
    def side(self) -> int:
        """S that the vision tower was trained at."""
        return int(self.vision.config.image_size)

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return int(self.vision.config.patch_size)

    @property
    def layers(self) -> int:
        """Blocks of the vision tower."""
        return len(self.vision.encoder.layers)

    def normalise(self, pixels_BSS3: Tensor) -> Tensor:
        """uint8 pictures to what the vision tower reads, (B, 3, S, S)."""
        scaled = pixels_BSS3.to(self.device).permute(0, 3, 1, 2).float() / 255
        return ((scaled - self._mean) / self._std).to(self.dtype)

    def embed(self, pixels_B3SS: Tensor) -> Tensor:
        """(B, T, D): what enters the first block. Positions are resampled bilinearly to another size's grid."""
        embeddings = self.vision.embeddings
        patches_BDhw = embeddings.patch_embedding(pixels_B3SS)
        patches_BPD = patches_BDhw.flatten(2).transpose(1, 2)
        class_B1D = embeddings.class_embedding.expand(len(patches_BPD), 1, -1)
        positions_TD = _positions(embeddings.position_embedding.weight, patches_BDhw.shape[-2:])
        embedded: Tensor = self.vision.pre_layrnorm(torch.cat([class_B1D, patches_BPD], dim=1) + positions_TD)
        return embedded

    def run(self, tokens_BTD: Tensor) -> Tensor:
        """(B, T, D): all blocks of the vision tower; any number of tokens."""
        for layer in self.vision.encoder.layers:
            tokens_BTD = layer(tokens_BTD, None)
        return tokens_BTD

    def project(self, tokens_xD: Tensor) -> Tensor:
        """(..., E) float32, length 1: the final norm and the projection to the joint space."""
        joint = self.visual_projection(self.vision.post_layernorm(tokens_xD))
        return F.normalize(joint.float(), dim=-1)

    def sentences(self, texts: Sequence[str]) -> Tensor:
        """(K, E) float32, length 1. A sentence that is too long is cut."""
        longest = self.text.config.max_position_embeddings
        parts = []
        for start in range(0, len(texts), SENTENCES_PER_FORWARD):
            some = list(texts[start : start + SENTENCES_PER_FORWARD])
            tokens = self.tokenizer(some, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            pooled = self.text(tokens["input_ids"].to(self.device)).pooler_output
            parts.append(F.normalize(self.text_projection(pooled).float(), dim=-1))
        return torch.cat(parts)

    def states(self, prompts: Prompts) -> Tensor:
        """(2, E) float32: normal, anomalous. Mean of the normalised sentences, normalised (CLIP, section 3.1.4).

        Kept: pictures of one kind come one after the other.
        """
        if prompts not in self._states:
            self._states[prompts] = self._mean_of(prompts)
        return self._states[prompts]

    def _mean_of(self, prompts: Prompts) -> Tensor:
        means = [self.sentences(texts).mean(dim=0) for texts in (prompts.normal, prompts.anomalous)]
        return F.normalize(torch.stack(means), dim=-1)


def load_towers(folder: str | Path, device: str = "auto", dtype: str = "auto") -> ClipTowers:
    """The CLIP in ``folder``; nothing is downloaded. safetensors only, and all weights must be there.

    Raises ``WeightsError`` (no such CLIP), ``CheckpointMismatch`` (weights missing or left over), DeviceError.
    """
    where, on = Path(folder).expanduser(), resolve_device(device)
    _require_clip(where)  # before the imports, which take seconds
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CLIPModel, CLIPTokenizer

    try:
        model, report = CLIPModel.from_pretrained(
            where, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        tokenizer = CLIPTokenizer.from_pretrained(where, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"cannot load the CLIP in {where}: {reason}", hint=HINT) from None
    _require_whole(where, report)
    if len(tokenizer) > model.config.text_config.vocab_size:
        raise CheckpointMismatch(
            f"the tokenizer in {where} knows {len(tokenizer)} tokens, the CLIP {model.config.text_config.vocab_size}",
            hint="put the tokenizer files of this CLIP there",
        )
    return ClipTowers(where, model, tokenizer, on, resolve_dtype(dtype, on))


def probabilities(features_xE: Tensor, states_x2E: Tensor, temperature: float) -> Tensor:
    """P(anomalous) float32: softmax over (normal, anomalous) of cosine / temperature (WinCLIP, equation 1).

    ``features_xE`` (B, ..., E) and ``states_x2E`` (B, 2, E), both of length 1.
    """
    flat_BNE = features_xE.flatten(1, -2) if features_xE.ndim > 2 else features_xE[:, None]
    cosines_BN2 = flat_BNE @ states_x2E.transpose(1, 2)
    likely = torch.sigmoid((cosines_BN2[..., 1] - cosines_BN2[..., 0]) / temperature)
    return likely.reshape(features_xE.shape[:-1])


def _positions(weight_TD: Tensor, grid_hw: tuple[int, int] | torch.Size) -> Tensor:
    own = round((len(weight_TD) - 1) ** 0.5)
    if (own, own) == tuple(grid_hw):
        return weight_TD
    patches_1Dhw = weight_TD[1:].T.reshape(1, -1, own, own).float()
    resampled = F.interpolate(patches_1Dhw, size=tuple(grid_hw), mode="bilinear", align_corners=False)
    return torch.cat([weight_TD[:1], resampled[0].flatten(1).T.to(weight_TD.dtype)])


def _require_clip(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{folder} is no CLIP folder: it has no config.json", hint=HINT)
    kind = _json(folder / "config.json").get("model_type")
    if kind != "clip":
        what = f"it holds a '{kind}'" if kind else "its config.json names no model_type"
        raise WeightsError(f"{folder} is no CLIP folder: {what}", hint=HINT)


def _require_whole(folder: Path, report: dict[str, Any]) -> None:
    wrong = [str(name) for name, *_ in sorted(report.get("mismatched_keys", ()))]
    # Files of old versions also hold the numbers 0, 1, 2, ... under this name.
    extra = sorted(name for name in report["unexpected_keys"] if not name.endswith("position_ids"))
    for what, names in (
        ("lacks", sorted(report["missing_keys"])),
        ("holds unexpected", extra),
        ("holds misshapen", wrong),
    ):
        if names:
            raise CheckpointMismatch(
                f"the CLIP in {folder} {what} weights: {len(names)}, such as {names[0]}", hint=HINT
            )


def _statistics(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    values = _json(folder / "preprocessor_config.json")
    mean, std = (
        tuple(values.get(name, own)) for name, own in zip(("image_mean", "image_std"), CLIP_STATISTICS, strict=True)
    )
    numbers = all(isinstance(value, (int, float)) for value in (*mean, *std))
    if not (numbers and len(mean) == len(std) == 3 and min(std) > 0):
        where = folder / "preprocessor_config.json"
        raise ConfigError(f"{where}: image_mean and image_std must be three numbers each", hint="correct the file")
    return mean, std


def _json(path: Path) -> dict[str, Any]:
    """The mapping in a small JSON file; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(MAX_CONFIG_BYTES))
    except ValueError:
        raise ConfigError(f"{path} is no JSON", hint="download or copy the file again") from None
    return values if isinstance(values, dict) else {}


def _revision(folder: Path) -> str:
    digests = [digest(path) for path in sorted(folder.glob("*.safetensors"))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()[:12]


ANY_OBJECT = "object"
"""What a thing is called when its name is not known."""

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ANOMALOUS_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")

_BOTH_ARTICLES = ("cropped", "close-up", "bright", "dark", "jpeg corrupted", "blurry")
_SIZES = ("", "small ", "large ")
_PURPOSES = ("visual inspection", "anomaly detection")
TEMPLATES = (
    *(f"a {look} photo of {article} {{}}." for look in _BOTH_ARTICLES for article in ("a", "the")),
    *(f"a photo of {article} {size}{{}}." for size in _SIZES for article in ("a", "the")),
    *(f"a photo of {article} {{}} for {purpose}." for purpose in _PURPOSES for article in ("a", "the")),
)


@dataclass(frozen=True)
class Prompts:
    """Sentences about one object in either state."""

    normal: tuple[str, ...]
    anomalous: tuple[str, ...]


def two_sentences(name: str) -> Prompts:
    """One sentence per state, as plain CLIP is asked in the AnomalyCLIP paper (arXiv 2310.18961, appendix)."""
    name = spoken(name)
    return Prompts((f"a photo of a normal {name}.",), (f"a photo of an anomalous {name}.",))


def compositional(name: str) -> Prompts:
    """Every state of the object in every template."""
    return Prompts(_filled(NORMAL_STATES, name), _filled(ANOMALOUS_STATES, name))


def spoken(name: str) -> str:
    """A category's name in words ("metal_nut" -> "metal nut"); ``ANY_OBJECT`` for an empty one."""
    return " ".join(name.replace("_", " ").replace("-", " ").split()) or ANY_OBJECT


def _filled(states: tuple[str, ...], name: str) -> tuple[str, ...]:
    named = [state.replace("{}", spoken(name)) for state in states]
    return tuple(template.replace("{}", state) for state in named for template in TEMPLATES)
