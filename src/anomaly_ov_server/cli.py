"""``anomaly-ov serve``: the HTTP service and its page, until Ctrl-C."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomaly_ov.cli.console import note, warn
from anomaly_ov.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from anomaly_ov.images.sources import Source
    from anomaly_ov_server.settings import ServeSettings

app = typer.Typer(add_completion=False)
TOKEN_VARIABLE = "ANOMALY_OV_TOKEN"
NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "httpx2", "httpcore2", "jinja2")


@app.command()
def serve(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH...]", help="Pictures to begin with: files, folders or globs; copied to --data."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    data: Annotated[
        Path,
        typer.Option(file_okay=False, help="Folder for pictures, findings and decisions; made if missing, else read."),
    ] = Path("anomaly-ov-data"),
    model: Annotated[str, typer.Option(help="Name of a shipped model, or a model folder.")] = "tiny",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, max=256, help="Most pictures per forward pass.")] = 8,
    threshold: Annotated[
        str | None,
        typer.Option(metavar="0..1|FILE.json", help="As of 'inspect': a score, or a file made by 'calibrate'."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help=f"File with the token that every request must bring (or set {TOKEN_VARIABLE}). Default: no token."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name under which browsers may reach the service; repeatable."),
    ] = None,
    remote_images: Annotated[
        bool, typer.Option("--remote-images", help="Fetch pictures from public http(s) addresses in requests.")
    ] = False,
) -> None:
    """Serve a page to inspect, ask and decide on, and the HTTP API behind it.

    Exit codes: 0 stopped, 2 usage (the port is taken, the folder is in use), 4 weights or extra missing, 5 device or
    memory.
    """
    _require_extra()
    from anomaly_ov.inspector import load
    from anomaly_ov_server.run import run
    from anomaly_ov_server.settings import ServeSettings

    first = _pictures(paths or [])
    settings = ServeSettings(
        data=data,
        host=host,
        port=port,
        token=_token(token_file),
        allowed_hosts=tuple(allow_host or ()),
        remote_images=remote_images,
        batch_size=batch_size,
    )
    _warn_of_open_door(settings)
    inspector = load(model, device=device, dtype=dtype, threshold=threshold, limits=settings.limits)
    run(inspector, settings, first, name=_name(paths or []), say=note)
    note(f"stopped; pictures, findings and decisions are kept in {data}")


def _require_extra() -> None:
    from importlib.util import find_spec

    for package in NEEDED:
        if find_spec(package) is None:
            raise MissingExtra(package, "server")


def _pictures(paths: list[str]) -> list[Source]:
    """Raises ``UsageError`` if nothing can come of them: before a model is loaded, and before a folder is made."""
    from anomaly_ov.images.sources import expand

    found = expand(paths) if paths else []
    missing = [one.id for one in found if isinstance(one.item, (str, Path)) and not Path(one.item).is_file()]
    if found and len(missing) == len(found):
        named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UsageError(f"no such picture: {named}", hint="give files, folders or quoted globs")
    return found


def _name(paths: list[str]) -> str:
    """What the batch is called: the file or folder, of several the folder that they share; the same the next time."""
    if not paths or paths == ["-"]:
        return "From the command line"
    return os.path.basename(os.path.commonpath([os.path.abspath(path) for path in paths]))


def _token(file: Path | None) -> str | None:
    """Never taken from the command line itself, which everyone on the machine may read."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"cannot read the token in {file}: {why}", hint="give a text file of one line") from None
    if len(token.split()) != 1:
        what = "more than one word" if token else "no token"
        raise UsageError(f"{file} holds {what}", hint="write one word of at least 16 characters into it")
    return token


def _warn_of_open_door(settings: ServeSettings) -> None:
    if not _is_loopback(settings.host) and settings.token is None:
        warn(
            f"everyone who reaches {settings.host}:{settings.port} may see and change all pictures and decisions; "
            f"set {TOKEN_VARIABLE} or give --token-file"
        )


def _is_loopback(host: str) -> bool:
    """Whether only this machine gets there. Raises ``UsageError`` for what stands for no address."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is no name"
        hint = "127.0.0.1 is for this machine alone, 0.0.0.0 for every network"
        raise UsageError(f"cannot listen on --host {host}: {why}", hint=hint) from None
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
