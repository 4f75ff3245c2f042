"""Puts a language model that has never read images behind a detector: where stage 2 begins with a decoder of one's own.

Any decoder that transformers knows by its configuration (Llama, Qwen2, ...) whose tokenizer has ChatML markup.
Projector, annotation and newline are new and untrained. Not here: LLaVA-OneVision checkpoints, which bring theirs
(``convert``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from anomaly_ov.errors import WeightsError
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.reasoning.config import AnomalyOVConfig, prompt_ids_of
from anomaly_ov.reasoning.folder import Reasoner
from anomaly_ov.reasoning.llava import read_tokenizer
from anomaly_ov.reasoning.model import AnomalyOV
from anomaly_ov.reasoning.processor import Processor


def behind_detector(decoder: str | Path, detector_folder: str | Path, **settings: Any) -> Reasoner:
    """The decoder in the folder ``decoder`` with the detector of a model folder, float32, in eval mode.

    ``settings``: fields of ``AnomalyOVConfig``, such as ``reading``. The image marker gets a row of its own behind the
    decoder's; all other logits of text are the decoder's own. Raises ``WeightsError`` for a folder that holds no
    decoder, ``ConfigError`` for a tokenizer that does not fit, and what ``AnomalyModel`` raises.
    """
    folder, detector = Path(decoder), AnomalyModel.from_pretrained(detector_folder)
    try:
        given = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{folder} holds no language model: {reason}", hint="see 'anomaly-ov models pull'") from None
    tokenizer, image_id = read_tokenizer(folder, given.config.vocab_size)
    text = given.config.to_dict() | {"vocab_size": max(given.config.vocab_size, image_id + 1)}
    config = AnomalyOVConfig(
        # Only its width is read: the tower itself is the detector's encoder.
        vision_config={"model_type": "siglip_vision_model", "hidden_size": detector.encoder.width},
        text_config=text,
        image_token_index=image_id,
        tie_word_embeddings=given.config.tie_word_embeddings,
        prompt_ids=prompt_ids_of(tokenizer),
        **settings,
    )
    model = AnomalyOV(config, detector)
    if image_id >= given.config.vocab_size:
        given.resize_token_embeddings(text["vocab_size"], mean_resizing=False)
        with torch.no_grad():
            for rows_VE in (given.get_input_embeddings().weight, given.lm_head.weight):
                rows_VE[image_id] = rows_VE[:image_id].mean(0)  # as a row of the head never the likeliest
    model.model.language_model.load_state_dict(given.model.state_dict())
    model.lm_head.load_state_dict(given.lm_head.state_dict())
    model.tie_weights()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Reasoner(model.eval(), Processor(tokenizer, config, detector.encoder.grid_hw))
