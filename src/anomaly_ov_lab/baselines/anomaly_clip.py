"""AnomalyCLIP (Zhou et al., ICLR 2024, arXiv 2310.18961) with its released prompts (code of commit 45ed4dd).

1. Two sentences about no object in particular, partly learned; their first words are replaced by other learned ones in
   the text tower's blocks 2 to 9 (section 3.2). One text vector each, from the last token.
2. Vision tower at 518 x 518: from the first of its last ``changed`` blocks on, a second path runs beside the usual one.
   It starts as a copy and adds, block by block, softmax(v v' / sqrt(d)) v of the *usual* path's normalised tokens,
   through the block's own output projection; no feed-forward layer (section 3.3, "DPAM", in its v-v form).
3. Score: softmax of both cosines / 0.07 of the usual path's class token.
4. Map: the same of each patch of the second path after the blocks ``layers``, averaged over these (the released code
   adds), bilinear, then a Gaussian of sigma 4 pixels.

Where the released code goes its own way it is followed, because its prompts were learned so: the class token is
projected *without* the final norm, patches with it; positions are resampled bilinearly. Not followed: it rounds the
replacing words to half precision (at most 5e-4 of each value).

Shapes: B pictures, T tokens, P patches, D width, E joint width, L tokens of a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly_ov_lab.baselines.clip_towers import ClipTowers, probabilities
from anomaly_ov_lab.baselines.detector import ClipScores, revision_of
from anomaly_ov_lab.baselines.learned_prompts import AnomalyClipConfig, LearnedPrompts, require_fit
from anomaly_ov_lab.baselines.pictures import Fit


class AnomalyClipJudge:
    """AnomalyCLIP; a ``detector.ClipMethod``. Raises ``ConfigError`` for settings that do not fit the CLIP."""

    name = "anomalyclip"
    fit: Fit = "squash"

    def __init__(self, towers: ClipTowers, prompts: LearnedPrompts, config: AnomalyClipConfig) -> None:
        require_fit(config, towers)
        self.towers, self.config = towers, config
        self.revision = revision_of(towers.revision, replace(config, clip=""))  # where the CLIP lies is no matter
        self.side, self.smoothing = config.image_size, config.smoothing
        self._layers = config.layers or (towers.layers,)
        with torch.inference_mode():
            self._states_2E = F.normalize(learned_states(towers, prompts), dim=-1)

    def judge(self, pixels_B3SS: Tensor, objects: Sequence[str]) -> ClipScores:
        """Scores and maps, see the module's text; what the objects are called plays no part."""
        class_BD, patches = two_paths(self.towers, self.towers.embed(pixels_B3SS), self.config.changed, self._layers)
        states_B2E = self._states_2E.expand(len(class_BD), -1, -1)
        class_BE = F.normalize(self.towers.visual_projection(class_BD).float(), dim=-1)
        scores_B = probabilities(class_BE, states_B2E, self.config.temperature)
        maps_BP = [
            probabilities(self.towers.project(patches_BPD), states_B2E, self.config.temperature)
            for patches_BPD in patches
        ]
        cells = self.side // self.towers.patch
        return ClipScores(scores_B, torch.stack(maps_BP).mean(dim=0).reshape(-1, cells, cells))


def two_paths(
    towers: ClipTowers, tokens_BTD: Tensor, changed: int, layers: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """The usual path's class token (B, D), and the second path's patches (B, P, D) after each of ``layers``.

    Before the second path begins its tokens are the usual ones.
    """
    first = towers.layers - changed
    local_BTD, kept = tokens_BTD, []
    for index, layer in enumerate(towers.vision.encoder.layers):
        if index >= first:
            local_BTD = local_BTD + value_attention(layer.self_attn, layer.layer_norm1(tokens_BTD))
        tokens_BTD = layer(tokens_BTD, None)
        if index < first:
            local_BTD = tokens_BTD
        if index + 1 in layers:
            kept.append(local_BTD[:, 1:])
    return tokens_BTD[:, 0], kept


def value_attention(attention: Any, normed_BTD: Tensor) -> Tensor:
    """(B, T, D): attention in which the values also serve as queries and keys, through the output projection."""
    count, tokens, width = normed_BTD.shape
    split = (count, tokens, attention.num_heads, width // attention.num_heads)
    values_BnTd = attention.v_proj(normed_BTD).view(split).transpose(1, 2)
    mixed_BnTd = F.scaled_dot_product_attention(values_BnTd, values_BnTd, values_BnTd)
    projected: Tensor = attention.out_proj(mixed_BnTd.transpose(1, 2).reshape(count, tokens, width))
    return projected


def learned_states(towers: ClipTowers, prompts: LearnedPrompts) -> Tensor:
    """(2, E) float32, not normalised: normal, anomalous."""
    text, length = towers.text, int(prompts.ends_2.max()) + 1
    # What follows the last token cannot be seen by it.
    hidden_2LD = prompts.sentences_2LD[:, :length] + text.embeddings.position_embedding.weight[:length]
    mask_LL = torch.full((length, length), float("-inf"), device=hidden_2LD.device).triu(1)
    for index, layer in enumerate(text.encoder.layers):
        if 1 <= index <= len(prompts.deep):
            words_2wD = prompts.deep[index - 1].expand(2, -1, -1)
            hidden_2LD = torch.cat([hidden_2LD[:, :1], words_2wD, hidden_2LD[:, 1 + words_2wD.shape[1] :]], dim=1)
        hidden_2LD = layer(hidden_2LD, mask_LL[None, None])
    normed_2LD = text.final_layer_norm(hidden_2LD)
    states: Tensor = towers.text_projection(
        normed_2LD[torch.arange(2, device=normed_2LD.device), prompts.ends_2]
    ).float()
    return states
