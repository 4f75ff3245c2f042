"""The encoder: views in, a few of a network's hidden states out, as tokens on one grid.

1. ``normalise``: uint8 pixels -> normalised floats.
2. The network (``backbones``) runs up to the deepest hidden state asked for; hooks keep exactly those.
3. CLS and register tokens are stripped; maps and tokens are resampled to ``grid_hw``.

Hidden state k is the tensor after block (or stage) k, 0 the one that enters the first block; no norm that follows the
blocks is ever applied, whatever a transformers version puts last into ``hidden_states``. With the default config this
is the released tower: levels 7, 13, 19, 25 and final 26 of SigLIP-so400m (docs/reference-implementation.md, section 1).

Legend: N views, H W pixels, P = h * w patches, C channels of one hidden state, D width of the final feature.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from anomaly_ov.errors import ConfigError
from anomaly_ov.models import backbones
from anomaly_ov.models.config import EncoderConfig
from anomaly_ov.models.features import Features

MAX_PREFIX = 64  # CLS and register tokens; more means that the sequence is not (prefix, grid)

# Where the hooks of the forward pass under way put what they see; per thread and per call.
_kept: ContextVar[dict[int, Tensor] | None] = ContextVar("kept hidden states", default=None)


class Encoder(nn.Module):
    """Any vision transformer or known convolutional network of transformers, with random weights, in eval mode.

    ``network``: use this one (it is cut in place) instead of building ``config.backbone``; see
    ``encoder_from_pretrained``. Raises ``ConfigError`` when the configuration and the network do not go together.
    """

    def __init__(self, config: EncoderConfig, network: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        depth = max(*config.levels, config.final)
        built = backbones.build(config.backbone, depth) if network is None else backbones.cut(network, depth)
        self.network = built.network
        self.blocks = len(built.blocks)  # the deepest hidden state asked for, at least one
        self.patch = built.patch
        self.level_widths = tuple(built.widths[level] for level in config.levels)
        self.width = built.widths[config.final]
        self.model_type = built.model_type
        self.grid_hw = self._grid()
        self._own_size = built.own_size
        self._interpolates = "interpolate_pos_encoding" in inspect.signature(self.network.forward).parameters
        self._hook(built.blocks)
        scale = 1.0 / (255.0 * torch.tensor(config.std, dtype=torch.float64, device="cpu"))
        shift = -255.0 * torch.tensor(config.mean, dtype=torch.float64, device="cpu") * scale
        self.scale_shift = (tuple(scale.tolist()), tuple(shift.tolist()))  # of a pixel in 0..255, per channel
        self.register_load_state_dict_post_hook(_restore_memory_format)  # type: ignore[no-untyped-call]
        _restore_memory_format(self)
        self.eval()

    @property
    def convolutional(self) -> bool:
        """Whether the network's hidden states are maps rather than token sequences."""
        return self.patch is None

    @property
    def image_size(self) -> int:
        """Side of the views in pixels."""
        return self.config.image_size

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the weights, and of everything computed here."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def normalise(self, pixels_NHW3: Tensor) -> Tensor:
        """uint8 RGB (N, H, W, 3) -> (N, 3, H, W), (x / 255 - mean) / std in the encoder's dtype on its device.

        The result keeps the input's pixel order (channels last), which convolutions read fastest on a CPU.
        """
        if pixels_NHW3.dtype != torch.uint8 or pixels_NHW3.ndim != 4 or pixels_NHW3.shape[-1] != 3:
            raise ValueError(f"pixels must be uint8 (N, H, W, 3), not {pixels_NHW3.dtype} {tuple(pixels_NHW3.shape)}")
        # bfloat16 has 8 bits: scale in float32, round once.
        compute = torch.float64 if self.dtype == torch.float64 else torch.float32
        x_NHW3 = pixels_NHW3.to(self.device, non_blocking=True).to(compute)
        scale_3, shift_3 = (x_NHW3.new_tensor(values) for values in self.scale_shift)
        torch.addcmul(shift_3, x_NHW3, scale_3, out=x_NHW3)
        return x_NHW3.permute(0, 3, 1, 2).to(self.dtype)

    def forward(self, pixels_N3HW: Tensor) -> Features:
        """Normalised pixels (N, 3, H, W) -> ``Features`` on ``grid_hw`` (the network's own grid if that is None).

        H and W may differ from ``image_size`` and from each other where the network can move its position embeddings.
        """
        kept = self._run(pixels_N3HW)
        height, width = pixels_N3HW.shape[-2:]
        own_hw = None if self.patch is None else (height // self.patch, width // self.patch)
        grid_hw = self.config.grid_hw or own_hw
        if grid_hw is None:
            raise ConfigError("encoder.grid_hw is needed for a convolutional network", hint="for example [16, 16]")
        tokens = {index: self._tokens(hidden, own_hw, grid_hw) for index, hidden in kept.items()}
        return Features(
            final_NPD=tokens[self.config.final],
            levels_NPD=tuple(tokens[level] for level in self.config.levels),
            grid_hw=grid_hw,
        )

    def fuse(self) -> Encoder:
        """A copy for inference with every batch norm folded into the convolution before it; this one stays as it is.

        Returns ``self`` when there is nothing to fold. The copy's state dict has other names: save the original.
        """
        pairs = [found for found in map(_conv_and_norm, self.network.modules()) if found]
        if not pairs:
            return self
        fused = copy.deepcopy(self).eval()
        for module in fused.network.modules():
            found = _conv_and_norm(module)
            if found:
                conv, norm = found
                module._modules[conv] = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                module._modules[norm] = nn.Identity()
        _restore_memory_format(fused)
        return fused

    def _run(self, pixels_N3HW: Tensor) -> dict[int, Tensor]:
        """Hidden states by index; the network's own output is dropped."""
        kept: dict[int, Tensor] = {}
        size_hw = tuple(pixels_N3HW.shape[-2:])
        resized = self._own_size is not None and size_hw != (self._own_size, self._own_size)
        # Only when needed: some networks interpolate, with rounding, even onto their own grid.
        options = {"interpolate_pos_encoding": True} if resized and self._interpolates else {}
        token = _kept.set(kept)
        try:
            self.network(**self._inputs(pixels_N3HW), **options)
        except (RuntimeError, ValueError) as error:
            if not resized or isinstance(error, torch.OutOfMemoryError):
                raise
            raise ConfigError(
                f"encoder: '{self.model_type}' of {self._own_size} pixels cannot read views of {size_hw}: {error}",
                hint="set image_size to the backbone's own",
            ) from error
        finally:
            _kept.reset(token)
        return kept

    def _inputs(self, pixels_N3HW: Tensor) -> dict[str, Tensor]:
        """What the network's forward takes; most cut the pixels beyond the last whole patch themselves."""
        if self.patch is None or self.model_type not in ("radio", "siglip2_vision_model"):
            return {"pixel_values": pixels_N3HW}
        size = self.patch
        rows, columns = (side // size for side in pixels_N3HW.shape[-2:])
        whole_N3HW = pixels_N3HW[..., : rows * size, : columns * size]
        if self.model_type == "radio":
            return {"pixel_values": whole_N3HW}
        # SigLIP 2 (NaFlex) wants flattened patches, (row, column, channel) within each, and the grid they came from.
        count = whole_N3HW.shape[0]  # len() would fix it while a graph is traced
        patches = whole_N3HW.reshape(count, 3, rows, size, columns, size).permute(0, 2, 4, 3, 5, 1)
        patches = patches.reshape(count, rows * columns, size * size * 3)
        return {
            "pixel_values": patches,
            "pixel_attention_mask": torch.ones(count, rows * columns, dtype=torch.int64, device=patches.device),
            "spatial_shapes": torch.tensor([[rows, columns]]).expand(count, -1),
        }

    def _tokens(self, hidden: Tensor, own_hw: tuple[int, int] | None, grid_hw: tuple[int, int]) -> Tensor:
        """(N, C, h', w') or (N, prefix + h' w', C) -> (N, h w, C) on ``grid_hw``."""
        if own_hw is None:
            return flatten_map(resample(hidden, grid_hw))
        rows, columns = own_hw
        prefix = hidden.shape[1] - rows * columns if hidden.ndim == 3 else -1
        if not 0 <= prefix <= MAX_PREFIX or hidden.shape[-1] != self.width:
            raise ConfigError(
                f"encoder.backbone: '{self.model_type}' gave {tuple(hidden.shape)}, no sequence of {rows} x {columns} "
                f"patches of width {self.width}",
                hint="choose a plain vision transformer",
            )
        patches = hidden[:, prefix:]
        if own_hw == grid_hw:
            return patches
        map_NChw = patches.reshape(patches.shape[0], *own_hw, self.width).permute(0, 3, 1, 2)
        return flatten_map(resample(map_NChw, grid_hw))

    def _grid(self) -> tuple[int, int]:
        if self.config.grid_hw is not None:
            return self.config.grid_hw
        if self.patch is None:
            raise ConfigError("encoder.grid_hw is needed for a convolutional network", hint="for example [16, 16]")
        side = self.config.image_size // self.patch
        if side < 1:
            raise ConfigError(
                f"encoder.image_size = {self.config.image_size} is smaller than one patch of {self.patch}",
                hint="raise image_size",
            )
        return side, side

    def _hook(self, blocks: nn.ModuleList) -> None:
        for index in sorted({*self.config.levels, self.config.final}):
            if index == 0:
                blocks[0].register_forward_pre_hook(_keep_input, with_kwargs=True)
            else:
                blocks[index - 1].register_forward_hook(partial(_keep_output, index))


def encoder_from_pretrained(
    name_or_folder: str | Path,
    levels: Sequence[int],
    final: int,
    *,
    image_size: int | None = None,
    grid_hw: tuple[int, int] | None = None,
) -> Encoder:
    """An encoder with the weights of a Hugging Face checkpoint, given as local folder or hub name.

    ``image_size``: side of the views, default the checkpoint's own (224 if it names none). Mean and std come from the
    checkpoint's preprocessor file. Raises ``WeightsError`` when it is not to be had (offline, no safetensors).
    """
    network, config = backbones.pretrained(name_or_folder)
    mean, std = backbones.preprocessing(name_or_folder, config)
    own = backbones.side_of(getattr(config, "image_size", None))
    settings: dict[str, Any] = {
        "backbone": backbones.minimal_mapping(config),
        "levels": tuple(levels),
        "final": final,
        "image_size": image_size or own or 224,
        "grid_hw": grid_hw,
        "mean": mean,
        "std": std,
    }
    return Encoder(EncoderConfig(**settings), network=network)


def resample(map_NChw: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """A map on another grid: each axis that shrinks by adaptive average pooling, each that grows bilinearly.

    Pooling weighs every source cell; bilinear keeps cell centres aligned (``align_corners=False``).
    """
    own_hw = (map_NChw.shape[-2], map_NChw.shape[-1])
    pooled_hw = (min(own_hw[0], grid_hw[0]), min(own_hw[1], grid_hw[1]))
    if pooled_hw != own_hw:
        map_NChw = F.adaptive_avg_pool2d(map_NChw, pooled_hw)
    if pooled_hw != grid_hw:
        map_NChw = F.interpolate(map_NChw, size=grid_hw, mode="bilinear", align_corners=False)
    return map_NChw


def flatten_map(map_NChw: Tensor) -> Tensor:
    """(N, C, h, w) -> contiguous (N, h w, C), row-major; no copy when the map is in channels-last order."""
    return map_NChw.permute(0, 2, 3, 1).contiguous().flatten(1, 2)


def _keep_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    kept = _kept.get()
    if kept is not None:
        kept[0] = args[0] if args else kwargs["hidden_states"]


def _keep_output(index: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    kept = _kept.get()
    if kept is not None:
        kept[index] = output[0] if isinstance(output, tuple) else output


def _restore_memory_format(encoder: Encoder, keys: Any = None) -> None:
    """Convolution weights in channels-last order; also after loading, which brings in plain ones."""
    if encoder.convolutional:
        encoder.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _conv_and_norm(module: nn.Module) -> tuple[str, str] | None:
    """Names of the one convolution among ``module``'s children and of the batch norm right after it."""
    children = list(module.named_children())
    convs = [i for i, (_, child) in enumerate(children) if isinstance(child, nn.Conv2d)]
    if len(convs) != 1 or convs[0] + 1 >= len(children):
        return None
    (conv_name, conv), (norm_name, norm) = children[convs[0]], children[convs[0] + 1]
    if isinstance(norm, nn.BatchNorm2d) and norm.num_features == conv.out_channels:
        return conv_name, norm_name
    return None
