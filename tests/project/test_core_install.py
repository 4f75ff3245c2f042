"""``pip install anomaly-ov`` without torch: what works there, and the line that each of the others ends in."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from core_install_fixtures import FORBIDDEN, PROJECT, ROOT, command_lines, hidden, python, requirements

pytestmark = pytest.mark.slow

CORE = {"numpy", "onnxruntime", "pillow", "pydantic", "rich", "safetensors", "scipy", "typer"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model folder with graphs."""
    from anomaly_ov.models.export.folder import export_folder
    from model_fixtures import save_small_model

    folder = save_small_model(tmp_path_factory.mktemp("core") / "small")
    export_folder(folder, folder)
    return folder


def test_the_core_depends_on_these_alone() -> None:
    assert {Requirement(line).name for line in PROJECT["dependencies"]} == CORE
    assert PROJECT["requires-python"] == ">=3.11"
    assert not {"torch", "transformers"} & {one.name for one in requirements("server", "serve", "remote")}
    assert set(FORBIDDEN) <= set(hidden()[0])
    assert {"torch", "transformers"} <= set(hidden("server")[0])


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT


def test_every_extra_that_errors_name_exists() -> None:
    named = set[str]()
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r'MissingExtra\([^)]*?, "([a-z]+)"\)', text))
        named |= set(re.findall(r"anomaly-ov\[([a-z,]+)\]", text))
    from anomaly_ov.cli.extras import OF_MODULE, WHOLE

    named |= {extra for extra, _ in WHOLE.values()} | set(OF_MODULE.values())
    assert named == {"lab", "openvino", "remote", "server", "torch"}
    assert named <= PROJECT["optional-dependencies"].keys()


def test_constraints_pin_all_that_is_asked_for() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
    assert {one.name.lower() for one in requirements("dev", "docs")} <= pinned


def test_what_works(model: Path, small_folder: Path, pictures: Path, tmp_path: Path) -> None:
    for name, label in (("p0", "good"), ("p1", "bad")):
        (tmp_path / "set" / label).mkdir(parents=True)
        shutil.copy(pictures / f"{name}.png", tmp_path / "set" / label)
    own = ("--model", model)
    inspected, built, with_context, calibrated, asked, *others, doctor = command_lines(
        ("inspect", pictures, *own, "--json"),
        ("context", "build", pictures / "p0.png", pictures / "p1.png", "--out", "good.ctx", *own),
        ("inspect", pictures, *own, "--context", "good.ctx", "--out", "out"),
        ("calibrate", pictures, *own, "--max-false-alarms", "0.5", "--out", "limit.json"),
        ("ask", pictures / "p0.png", "Is anything wrong?", *own),
        ("models", "list"),
        ("synthesise", "made", "--count", "1"),
        ("schema",),
        ("baselines", "list"),
        ("data", "check", "set"),
        ("train", "--help"),
        ("doctor", *own),
        cwd=tmp_path,
    )
    for one in (inspected, built, with_context, calibrated, asked, *others, doctor):
        assert one.code == 0, one
    assert all(0 <= json.loads(line)["score"] <= 1 for line in inspected.out.splitlines())
    assert (tmp_path / "out" / "p0.overlay.png").is_file()
    assert (tmp_path / "limit.json").is_file()
    assert re.search(r"^ok +engine +onnx: ONNX Runtime .* 1 thread", doctor.out, re.MULTILINE)
    assert re.search(r"^note +torch", doctor.out, re.MULTILINE)


def test_what_is_missing_ends_in_the_line_that_installs_it(
    model: Path, small_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    speaking = tmp_path / "speaking"
    (speaking / "language").mkdir(parents=True)
    for file in model.iterdir():
        (speaking / file.name).symlink_to(file)
    endpoint = ("--endpoint", "http://localhost:9", "--endpoint-model", "x")
    expected: dict[tuple[object, ...], tuple[str, str]] = {
        ("inspect", pictures, "--model", small_folder): ("torch", "torch"),
        ("inspect", pictures, "--model", model, "--device", "cuda"): ("torch", "torch"),
        ("ask", pictures, "Is it broken?", "--model", speaking): ("torch", "torch"),
        ("ask", pictures, "Is it broken?", "--model", model, *endpoint): ("openai", "remote"),
        ("models", "convert", "a.pth", "--out", "b"): ("torch", "torch"),
        ("models", "create", "a", "--out", "b"): ("torch", "torch"),
        ("models", "export", model, "--out", "b"): ("torch", "lab"),
        ("train", "expert", "--recipe", "a", "--data", "b", "--start", model, "--out", "c"): ("torch", "lab"),
        ("eval", "detect", "--data", pictures, "--model", model): ("torch", "lab"),
        ("baselines", "convert-clip", "a", "--out", "b", "--tokenizer", "c"): ("torch", "torch"),
        ("serve", "--model", model): ("fastapi", "server"),
    }
    *found, doctor = command_lines(*expected, ("doctor", "--model", small_folder), cwd=tmp_path)
    for line, (package, extra), one in zip(expected, expected.values(), found, strict=True):
        assert (one.code, one.err.splitlines()) == (
            4,
            [
                f"error: this needs the package '{package}', which is not installed",
                f'hint: pip install "anomaly-ov[{extra}]"',
            ],
        ), line
    assert doctor.code == 4
    assert "2 failure(s): torch, inspection" in doctor.err


def test_a_recipe_needs_yaml(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from anomaly_ov.configuration import read_yaml
from anomaly_ov.errors import MissingExtra
try:
    read_yaml(Path("recipe.yaml"))
except MissingExtra as error:
    print(error.hint)
"""
    done = python(code, cwd=tmp_path)
    assert done.stdout == 'pip install "anomaly-ov[lab]"\n', done.stderr


def test_the_service(model: Path, pictures: Path, tmp_path: Path) -> None:
    code = """
import asyncio
from pathlib import Path
from anomaly_ov import load
from anomaly_ov_server import run  # all that 'serve' imports
from anomaly_ov_server.app import create_app
from anomaly_ov_server.settings import ServeSettings

model, picture = sys.argv[1:]
app = create_app(load(model), ServeSettings(data=Path("data")))


async def ask(method, path, body=b"", kind="text/plain"):
    sent, given = [], [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        return given.pop() if given else await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:8765"), (b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8765), "state": {},
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:])


async def main():
    async with app.router.lifespan_context(app):
        print(*await ask("GET", "/healthz"))
        status, body = await ask("POST", "/v1/inspect", Path(picture).read_bytes(), "image/png")
        print(status, "score" in json.loads(body)["findings"][0])


asyncio.run(main())
"""
    done = python(code, str(model), str(pictures / "p0.png"), extras=("server",), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    health, inspected = done.stdout.splitlines()
    assert (health.split()[0], inspected) == ("200", "200 True")
