"""From what is not installed to the line that installs it: extras of whole verbs, and of single packages.

The core install inspects, makes contexts, calibrates and, with ``server``, serves. What else needs packages beyond it
is listed here once; where a message can say more than that a package is missing, the code that needs it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from anomaly_ov.errors import MissingExtra

# Verbs that do nothing without an extra, with the modules that tell whether it is there.
_LAB = ("torch", "transformers", "yaml", "jinja2", "onnxscript")
_TORCH = ("torch", "transformers")
WHOLE: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {
    ("train",): ("lab", _LAB),
    ("eval",): ("lab", _LAB),
    ("models", "export"): ("lab", _LAB),
    ("models", "convert"): ("torch", _TORCH),
    ("models", "create"): ("torch", _TORCH),
}
OF_MODULE = {
    **dict.fromkeys(("torch", "transformers", "tokenizers", "huggingface_hub"), "torch"),
    **dict.fromkeys(("peft", "tensorboard", "yaml"), "lab"),
    **dict.fromkeys(("onnx", "onnx_ir", "onnxscript", "rouge_score", "sentence_transformers"), "lab"),
    **dict.fromkeys(("fastapi", "httpcore2", "httpx2", "jinja2", "prometheus_client", "uvicorn"), "server"),
    "openai": "remote",
}
_PACKAGE = {"yaml": "pyyaml"}


def require_extra(args: Sequence[str]) -> None:
    """Raises ``MissingExtra`` for a command line whose verb needs an extra that is not there; never for its help."""
    if {"-h", "--help"} & set(args):
        return
    extra, modules = _of_verb(args)
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtra(_PACKAGE.get(module, module), extra)


def missing_extra(error: BaseException, args: Sequence[str]) -> MissingExtra | None:
    """What ``error`` says, if it is the import of a package that an extra would bring; None for anything else."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if module not in OF_MODULE or find_spec(module) is not None:  # there, but broken: a bug, or a broken installation
        return None
    return MissingExtra(_PACKAGE.get(module, module), _of_verb(args)[0] or OF_MODULE[module])


def _of_verb(args: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    words = tuple(word for word in args if not word.startswith("-"))
    return next((needed for verb, needed in WHOLE.items() if words[: len(verb)] == verb), ("", ()))
