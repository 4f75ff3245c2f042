"""The engine of torch: batch norms folded, the expert in float32, any device, out of memory handled (``runner``).

Features stay on the device until someone reads them as arrays, so that a GPU's expert gets them without a detour.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from anomaly_ov.models.arrays import ExpertPart, FeatureArrays, Floats, Pixels
from anomaly_ov.models.config import ModelConfig
from anomaly_ov.models.device import is_out_of_memory
from anomaly_ov.models.engines.interface import in_parts, out_of_memory, require_views
from anomaly_ov.models.features import Features
from anomaly_ov.models.model import AnomalyModel
from anomaly_ov.models.runner import Runner


class TensorFeatures(FeatureArrays):
    """``FeatureArrays`` that lie on a device as ``tensors``, float32, and are copied to the host when first read."""

    def __init__(self, tensors: Features) -> None:
        object.__setattr__(self, "tensors", tensors)
        object.__setattr__(self, "grid_hw", tensors.grid_hw)

    tensors: Features

    @cached_property
    def final_NPD(self) -> Floats:
        """The last feature on the host."""
        return _array(self.tensors.final_NPD)

    @cached_property
    def levels_NPD(self) -> tuple[Floats, ...]:
        """The levels on the host."""
        return tuple(_array(level) for level in self.tensors.levels_NPD)

    def __len__(self) -> int:
        return len(self.tensors.final_NPD)

    def views(self, start: int, end: int) -> TensorFeatures:
        """Those of the views from ``start`` up to ``end``, on the same device."""
        own = self.tensors
        levels_NPD = tuple(level[start:end] for level in own.levels_NPD)
        return TensorFeatures(Features(own.final_NPD[start:end], levels_NPD, own.grid_hw))


class TorchEngine:
    """``interface.Engine`` of a model in memory; ``runner`` holds its networks on their device.

    ``device``, ``dtype``, ``views_per_forward``: as for ``Runner``, which says what they raise.
    """

    name = "torch"

    def __init__(
        self, model: AnomalyModel, device: str = "auto", dtype: str = "auto", views_per_forward: int | None = None
    ) -> None:
        self.runner = Runner(model, device, dtype, views_per_forward)
        self.config: ModelConfig = model.config

    @property
    def device(self) -> str:
        """As torch names it, e.g. cpu or cuda:0."""
        return str(self.runner.device)

    @property
    def dtype(self) -> str:
        """Of the encoder: float32, bfloat16 or float16."""
        return str(self.runner.dtype).removeprefix("torch.")

    @property
    def views_per_forward(self) -> int:
        """Most views that are encoded at once; halved when memory runs out."""
        return self.runner.views_per_forward

    @property
    def patch(self) -> float | None:
        """See ``Engine``."""
        return self.runner.patch

    def encode(self, pixels_NHW3: Pixels) -> TensorFeatures:
        """See ``Engine.encode``; views of another side than the model's are taken where the network can."""
        try:
            parts, self.runner.views_per_forward = in_parts(
                self._encode_once, pixels_NHW3, self.runner.views_per_forward
            )
            return TensorFeatures(_joined(parts))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self._release()
        raise out_of_memory(self.device)

    def expert(self, features: FeatureArrays, views_per_image: Sequence[int]) -> list[ExpertPart]:
        """See ``Engine.expert``; when memory runs out the pictures are taken in halves."""
        require_views(views_per_image, len(features))
        tensors = features.tensors if isinstance(features, TensorFeatures) else self._uploaded(features)
        return self._judge(tensors, list(views_per_image))

    def _encode_once(self, pixels_NHW3: Pixels) -> Features:
        try:
            with torch.inference_mode():
                return self.runner.features(pixels_NHW3)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except block: the traceback would keep the failed pass's tensors alive.
        self._release()
        raise MemoryError

    def _judge(self, features: Features, counts: list[int]) -> list[ExpertPart]:
        try:
            with torch.inference_mode():
                output = self.runner.expert(features, counts)
                map_Nhw, score_B = _array(output.map_Nhw), _array(output.score_B)
                local_NQD, global_BD = _array(output.local_NQD), _array(output.global_BD)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            parts, start = list[ExpertPart](), 0
            for index, count in enumerate(counts):
                own = slice(start, start + count)
                parts.append(ExpertPart(map_Nhw[own], float(score_B[index]), local_NQD[own], global_BD[index]))
                start += count
            return parts
        self._release()
        if len(counts) == 1:
            raise out_of_memory(self.device)
        half = len(counts) // 2
        first = sum(counts[:half])
        whole = TensorFeatures(features)
        before, after = whole.views(0, first), whole.views(first, len(whole))
        return self._judge(before.tensors, counts[:half]) + self._judge(after.tensors, counts[half:])

    def _uploaded(self, features: FeatureArrays) -> Features:
        device = self.runner.device
        final_NPD = torch.from_numpy(features.final_NPD).to(device)
        levels_NPD = tuple(torch.from_numpy(level).to(device) for level in features.levels_NPD)
        return Features(final_NPD, levels_NPD, features.grid_hw)

    def _release(self) -> None:
        if self.runner.device.type == "cuda":
            torch.cuda.empty_cache()


def _joined(parts: Sequence[Features]) -> Features:
    if len(parts) == 1:
        return parts[0]
    levels = zip(*(part.levels_NPD for part in parts), strict=True)
    final_NPD = torch.cat([part.final_NPD for part in parts])
    return Features(final_NPD, tuple(torch.cat(level) for level in levels), parts[0].grid_hw)


def _array(tensor: torch.Tensor) -> Floats:
    array: Floats = tensor.detach().float().cpu().numpy()
    return array
