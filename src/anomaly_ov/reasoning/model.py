"""Anomaly-OV: transformers' LLaVA-OneVision whose image tokens come from the detector's evidence.

1. ``AnomalyOVModel.get_image_features``: pixels -> evidence -> the tokens of each picture (``fusion``).
2. ``AnomalyOVModel.forward`` puts them where the ids have image placeholders and hands over to the stock model.
3. ``AnomalyOV`` adds the language model's head; generate, PEFT and ``Trainer`` see a stock model.

The detector (encoder and expert) is frozen, always in eval mode, and computes in its own precision. It is no part of
the language side's state dict: its weights live in the model folder itself (``folder``). A model without one can
still read text and evidence made elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava_onevision.modeling_llava_onevision import (
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
    LlavaOnevisionMultiModalProjector,
    LlavaOnevisionPreTrainedModel,
)

from anomaly_ov.errors import UsageError
from anomaly_ov.images.geometry import Geometry
from anomaly_ov.images.views import anyres_geometry, multi_image_geometry
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.reasoning.annotation import Annotation
from anomaly_ov.reasoning.config import READINGS, AnomalyOVConfig
from anomaly_ov.reasoning.evidence import Evidence, evidence_of
from anomaly_ov.reasoning.fusion import Fusion


class AnomalyOVModel(LlavaOnevisionModel):  # type: ignore[misc]
    """``detector`` + projector + newline + language model, in the stock model's names where it has them."""

    config_class = AnomalyOVConfig

    def __init__(self, config: AnomalyOVConfig, detector: AnomalyModel | None = None) -> None:
        # Not the stock constructor: it would build a vision tower that the detector stands in for.
        LlavaOnevisionPreTrainedModel.__init__(self, config)
        width = config.text_config.hidden_size
        self.multi_modal_projector = LlavaOnevisionMultiModalProjector(config)
        self.annotation = Annotation(width) if config.annotate else None
        self.image_newline = nn.Parameter(torch.randn(width, dtype=self.dtype) / math.sqrt(width))
        self.vocab_size = config.text_config.vocab_size
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()
        # In a list, so that torch does not register it: it is neither trained, cast nor saved with the language side.
        self._detector: list[AnomalyModel] = []
        self._encoder: list[Encoder] = []
        if detector is not None:
            self.attach(detector)

    @property
    def detector(self) -> AnomalyModel | None:
        """Encoder and expert; frozen, and not among this module's parameters."""
        return self._detector[0] if self._detector else None

    def attach(self, detector: AnomalyModel) -> None:
        """Gives the model eyes; from here on the detector is frozen."""
        self._detector = [detector.eval().requires_grad_(False)]
        self._encoder = [detector.encoder.fuse()]

    def look(self, pixels: Tensor, geometries: Sequence[Geometry]) -> list[Evidence]:
        """The detector's evidence on pictures. ``pixels``: views as ``AnomalyModel`` takes them, picture after picture.

        Raises ``UsageError`` without a detector.
        """
        detector = self.detector
        if detector is None:
            raise UsageError("this language model has no detector to look with", hint="load it from its model folder")
        device = self.image_newline.device
        if self._encoder[0].device != device:
            detector.to(device)
            self._encoder[0].to(device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            encoder = self._encoder[0]  # batch norms folded in
            views_N3HW = encoder.normalise(pixels) if pixels.dtype == torch.uint8 else pixels.to(device, encoder.dtype)
            features = encoder(views_N3HW)
            output = detector.expert(features, [geometry.views for geometry in geometries])
        fused = self.config.level_score == "fused"
        patch = float(encoder.patch) if encoder.patch and encoder.config.grid_hw is None else None
        return evidence_of(features, output, geometries, detector.config.scoring if fused else None, patch)

    def picture_tokens(self, evidence: Sequence[Evidence], readings: Sequence[str] | None = None) -> list[Tensor]:
        """(T, E) embeddings of each picture; ``readings``: one per picture, default the configuration's."""
        fusion = Fusion(self.config, self.multi_modal_projector, self.annotation)
        prompts = torch.tensor(self.config.prompts, device=self.image_newline.device)
        prompt_BKE = self.get_input_embeddings()(prompts[[self.config.level(one.score) for one in evidence]])
        return fusion(evidence, self.image_newline, prompt_BKE, readings or [self.config.reading] * len(evidence))

    def embed(self, input_ids: Tensor, pictures: Sequence[Tensor]) -> Tensor:
        """(B, T, E): embeddings of ids, image placeholders replaced by the pictures' tokens in order.

        Raises ``UsageError`` when the counts differ.
        """
        embeds_BTE: Tensor = self.get_input_embeddings()(input_ids)
        places_BT = input_ids == self.config.image_token_id
        given = sum(len(picture) for picture in pictures)
        if int(places_BT.sum()) != given:
            raise UsageError(
                f"{int(places_BT.sum())} image places in the ids, but {len(pictures)} pictures give {given} tokens",
                hint="use the processor of this model, with the reading that the model is given",
            )
        if not pictures:
            return embeds_BTE
        tokens_SE = torch.cat(list(pictures)).to(embeds_BTE)
        return torch.masked_scatter(embeds_BTE, places_BT.unsqueeze(-1), tokens_SE)

    def get_image_features(
        self,
        pixel_values: Tensor,
        image_sizes: Tensor,
        vision_feature_layer: Any = None,
        vision_feature_select_strategy: str | None = None,
        vision_aspect_ratio: str | None = None,
        batch_num_images: Tensor | None = None,
        image_lengths: Tensor | None = None,
        image_readings: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """``pooler_output``: the tokens of each picture, (T, E).

        ``pixel_values``: (pictures, most views, ...) padded, or (all views, ...), uint8 (H, W, 3) or normalised
        (3, H, W). ``image_sizes`` (pictures, 2): height and width. ``batch_num_images``: pictures per sample; several
        get one view each, as 3-D views do. ``image_lengths``: tokens of each picture that survived truncation.
        ``image_readings``: index into ``READINGS`` for each picture. The stock arguments that choose
        layers are accepted and not used: the detector's configuration does.
        """
        geometries = self._geometries(image_sizes, batch_num_images)
        if pixel_values.ndim == 5:
            of_each = zip(pixel_values, geometries, strict=True)
            pixel_values = torch.cat([views[: geometry.views] for views, geometry in of_each])
        readings = None if image_readings is None else [READINGS[int(index)] for index in image_readings]
        pictures = self.picture_tokens(self.look(pixel_values, geometries), readings)
        if image_lengths is not None:
            pictures = [one[: int(length)] for one, length in zip(pictures, image_lengths, strict=True)]
        return BaseModelOutputWithPooling(pooler_output=pictures)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        batch_num_images: Tensor | None = None,
        image_lengths: Tensor | None = None,
        image_readings: Tensor | None = None,
        past_key_values: Any = None,
        mm_encoder_outputs: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As the stock model; pictures, if ids stand for some, as ``get_image_features`` takes or, in
        ``mm_encoder_outputs``, gives them. Raises ``UsageError`` when ids and pictures do not fit.
        """
        if pixel_values is not None and (image_sizes is None or input_ids is None):
            raise UsageError("pixel_values need image_sizes and input_ids", hint="pass all that the processor gives")
        pictures: list[Tensor] = []
        if pixel_values is not None and image_sizes is not None:
            features = self.get_image_features(
                pixel_values,
                image_sizes,
                batch_num_images=batch_num_images,
                image_lengths=image_lengths,
                image_readings=image_readings,
            )
            pictures = features.pooler_output
        elif mm_encoder_outputs and mm_encoder_outputs.get("image") is not None:
            pictures = mm_encoder_outputs["image"].pooler_output
        # Later steps of generation bring no pictures, and a placeholder in them is one that the model has said itself.
        begun = past_key_values is not None and int(past_key_values.get_seq_length()) > 0
        if input_ids is not None and (pictures or not begun):
            inputs_embeds, input_ids = self.embed(input_ids, pictures), None
        return super().forward(
            input_ids=input_ids, inputs_embeds=inputs_embeds, past_key_values=past_key_values, **kwargs
        )

    def _geometries(self, image_sizes: Tensor, batch_num_images: Tensor | None) -> list[Geometry]:
        if self.detector is None:
            raise UsageError("pixels need a detector", hint="load the model from its folder")
        views = self.detector.config.views
        counts = [1] * len(image_sizes) if batch_num_images is None else [int(count) for count in batch_num_images]
        alone = [count == 1 for count in counts for _ in range(count)]
        sizes = [(int(width), int(height)) for height, width in image_sizes]
        return [
            (anyres_geometry if single else multi_image_geometry)(size_wh, views)
            for size_wh, single in zip(sizes, alone, strict=True)
        ]


class AnomalyOV(LlavaOnevisionForConditionalGeneration):  # type: ignore[misc]
    """The whole model. ``detector``: encoder and expert; None = text and ready-made evidence only.

    Saved and loaded with its detector by ``folder``; ``save_pretrained`` and ``from_pretrained`` of this class do the
    language side alone.
    """

    config_class = AnomalyOVConfig

    def __init__(self, config: AnomalyOVConfig, detector: AnomalyModel | None = None) -> None:
        LlavaOnevisionPreTrainedModel.__init__(self, config)
        self.model = AnomalyOVModel(config, detector)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        batch_num_images: Tensor | None = None,
        image_lengths: Tensor | None = None,
        image_readings: Tensor | None = None,
        mm_encoder_outputs: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As the stock model, with ``image_lengths`` and ``image_readings`` (see ``get_image_features``).

        Named here because generate and ``Trainer`` read the signature to learn what may be passed.
        """
        extra = {"mm_encoder_outputs": mm_encoder_outputs} if mm_encoder_outputs is not None else {}
        return super().forward(
            input_ids=input_ids,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            batch_num_images=batch_num_images,
            image_lengths=image_lengths,
            image_readings=image_readings,
            **extra,
            **kwargs,
        )
