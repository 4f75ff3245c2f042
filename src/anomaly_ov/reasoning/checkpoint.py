"""The weights of a Hugging Face folder by name, from one file or from shards, and how they fit what is to be filled.

Headers are read first; a tensor is read once everything is known to fit, one at a time, so that converting takes the
memory of the result. safetensors only. Not here: what the names mean (``llava``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from anomaly_ov.configuration import MAX_CONFIG_BYTES
from anomaly_ov.errors import CheckpointMismatch, UnsafeCheckpoint, WeightsError
from anomaly_ov.images.messages import some
from anomaly_ov.models import weights
from anomaly_ov.models.hub import WEIGHTS_FILE

INDEX_FILE = WEIGHTS_FILE + ".index.json"
MAX_INDEX_BYTES = 64 * 2**20
MAX_FILES = 4096
FLOATS = {"F64", "F32", "F16", "BF16"}
# Where training scripts leave tuned weights beside or instead of a model; pickles, so never read.
ELSEWHERE = ("adapter_model.bin", "non_lora_trainables.bin", "mm_projector.bin")
ADAPTER_FILE = "adapter_model.safetensors"
COPY_HINT = "copy or download the whole folder again"
WHOLE_HINT = (
    "give a complete model, adapters merged, as safetensors; a vision tower that was frozen may come from --encoder"
)

Renames = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Stored:
    """What a header says of one tensor; ``kind``: its type in safetensors' words, such as BF16."""

    shape: tuple[int, ...]
    kind: str
    file: Path


class Checkpoint:
    """``tensors`` by name, from the headers in ``folder``.

    Raises ``WeightsError`` (no weights, a shard missing, tuned weights in a file that is not read),
    ``UnsafeCheckpoint`` (no complete safetensors file) and ``CheckpointMismatch`` (index and shards differ, a name in
    two files).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tensors: dict[str, Stored] = {}
        files, indexed = _files(folder)
        for file in files:
            for name, stored in _header(file).items():
                if name in self.tensors:
                    both = f"{self.tensors[name].file.name} and {file.name}"
                    raise CheckpointMismatch(f"{folder}: {name} is in both {both}", hint=COPY_HINT)
                self.tensors[name] = stored
        lost = sorted(indexed - self.tensors.keys())
        if lost:
            raise CheckpointMismatch(f"{folder}: its shards lack what {INDEX_FILE} lists: {some(lost)}", hint=COPY_HINT)

    def read(self, wanted: Mapping[str, str], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """(target, tensor in ``dtype``) for each ``wanted`` target -> name here, file by file.

        Raises ``CheckpointMismatch`` at a value that is not finite, or not any more in ``dtype``.
        """
        from safetensors import safe_open

        for file in sorted({self.tensors[name].file for name in wanted.values()}):
            with safe_open(str(file), framework="pt") as opened:
                for target, name in wanted.items():
                    if self.tensors[name].file == file:
                        yield target, self._finite(name, opened.get_tensor(name), dtype)

    def _finite(self, name: str, stored: Tensor, dtype: torch.dtype) -> Tensor:
        tensor = stored.to(dtype)
        if bool(tensor.isfinite().all()):
            return tensor
        if bool(stored.isfinite().all()):
            raise CheckpointMismatch(f"{self.folder}: {dtype} cannot hold {name}", hint="choose bfloat16 or float32")
        raise CheckpointMismatch(f"{self.folder}: {name} holds values that are not finite", hint=COPY_HINT)


def fit(
    checkpoint: Checkpoint, renames: Renames, expected: weights.Shapes, parts: Renames, leftover: Iterable[str]
) -> dict[str, str]:
    """Which tensor of ``checkpoint`` fills which of ``expected``: target -> name; each filled by exactly one.

    ``renames``: (prefix, what stands for it in the target), the first that fits is taken. ``parts``: (prefix of
    targets, what people call that part). ``leftover``: patterns of targets that need no place. Raises
    ``CheckpointMismatch`` with everything that is missing, unexpected, there twice, of another shape or no float.
    """
    unneeded = re.compile("|".join(f"(?:{pattern})" for pattern in leftover))
    found: dict[str, str] = {}
    unexpected, twice, shapes, kinds = list[str](), list[str](), list[str](), list[str]()
    for name, stored in checkpoint.tensors.items():
        target = rename(name, renames)
        if target in expected and target in found:
            twice.append(f"{found[target]} and {name}")
        elif target in expected:
            found[target] = name
            if stored.shape != expected[target]:
                shapes.append(f"{name} is {list(stored.shape)}, must be {list(expected[target])}")
            elif stored.kind not in FLOATS:
                kinds.append(f"{name} is {stored.kind}")
        elif target is None or not unneeded.fullmatch(target):
            unexpected.append(name)
    faults = [
        _missing(expected, found, parts),
        *(
            f"{len(names)} {what}: {some(names)}"
            for what, names in (
                ("unexpected", unexpected),
                ("there twice", twice),
                ("of another shape", shapes),
                ("not floating point", kinds),
            )
            if names
        ),
    ]
    if any(faults):
        reasons = "; ".join(fault for fault in faults if fault)
        raise CheckpointMismatch(f"{checkpoint.folder} is no complete model that fits: {reasons}", hint=WHOLE_HINT)
    return found


def rename(name: str, renames: Renames) -> str | None:
    """The target of ``name``; None when no prefix fits."""
    for prefix, instead in renames:
        if name.startswith(prefix):
            return instead + name[len(prefix) :]
    return None


def _missing(expected: weights.Shapes, found: Mapping[str, str], parts: Renames) -> str:
    """Part by part, so that a part that is absent altogether is seen at once; empty when nothing is missing."""
    by_part: dict[str, list[str]] = {part: [] for _, part in parts}
    totals = dict.fromkeys(by_part, 0)
    for target in expected:
        part = next(part for prefix, part in parts if target.startswith(prefix))
        totals[part] += 1
        if target not in found:
            by_part[part].append(target)
    said = [
        f"all {totals[part]} of the {part} (such as {lacking[0]})"
        if len(lacking) == totals[part]
        else f"{len(lacking)} of {totals[part]} of the {part}: {some(lacking)}"
        for part, lacking in by_part.items()
        if lacking
    ]
    return f"missing {'; '.join(said)}" if said else ""


def _header(file: Path) -> dict[str, Stored]:
    from safetensors import safe_open

    shapes = weights.read_shapes(file)
    with safe_open(str(file), framework="pt") as opened:
        return {name: Stored(shape, opened.get_slice(name).get_dtype(), file) for name, shape in shapes.items()}


def _files(folder: Path) -> tuple[list[Path], set[str]]:
    """The files to read, and the names that the index promises."""
    pickles = [name for name in ELSEWHERE if (folder / name).is_file()]
    if pickles:
        raise WeightsError(
            f"{folder} has tuned weights in {', '.join(pickles)}, no safetensors and no whole model", hint=WHOLE_HINT
        )
    if (folder / INDEX_FILE).is_file():
        listed = _index(folder / INDEX_FILE)
        files = [folder / name for name in sorted(set(listed.values()))]
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            lost = sorted(name for name, file in listed.items() if file in absent)
            raise WeightsError(
                f"{folder}: {len(absent)} of {len(files)} shards are missing ({some(absent)}), with {some(lost)}",
                hint=COPY_HINT,
            )
        # Adapters beside a model are never dropped in silence: their names will not fit.
        return files + [file for file in (folder / ADAPTER_FILE,) if file.is_file()], set(listed)
    files = [file for name in (WEIGHTS_FILE, ADAPTER_FILE) if (file := folder / name).is_file()]
    if not (folder / WEIGHTS_FILE).is_file():
        files = sorted(folder.glob("*.safetensors"))[:MAX_FILES]
    if not files:
        raise WeightsError(f"{folder} holds no weights: neither {WEIGHTS_FILE} nor shards of it", hint=WHOLE_HINT)
    return files, set()


def _index(path: Path) -> dict[str, str]:
    """Name -> file beside the index."""
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise UnsafeCheckpoint(f"{path} is larger than {MAX_INDEX_BYTES} bytes", hint=COPY_HINT)
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = {str(name): str(file) for name, file in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UnsafeCheckpoint(f"{path} is no index of shards", hint=COPY_HINT) from None
    outside = [file for file in names.values() if file != Path(file).name or not file.endswith(".safetensors")]
    if outside or not 0 < len(set(names.values())) <= MAX_FILES:
        raise UnsafeCheckpoint(f"{path} names {outside[:1] or 'no shards'}, not files beside it", hint=COPY_HINT)
    return names


def read_json(path: Path) -> dict[str, object]:
    """The mapping in a small JSON file. Raises ``WeightsError`` when it is missing or none."""
    if not path.is_file():
        raise WeightsError(f"no model at {path.parent}: {path.name} is missing", hint=WHOLE_HINT)
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise UnsafeCheckpoint(f"{path} is larger than {MAX_CONFIG_BYTES} bytes", hint=COPY_HINT)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not valid JSON: {error}", hint=COPY_HINT) from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} must hold a mapping of fields", hint=COPY_HINT)
    return values
