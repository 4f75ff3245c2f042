"""``anomaly-ov chat``: a conversation about one picture, typed or piped in line by line."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from anomaly_ov.cli import brain, contexts, spoken
from anomaly_ov.cli.console import note, print_error
from anomaly_ov.errors import AnomalyOVError, EndpointRefused, UsageError
from anomaly_ov.images.messages import printable

if TYPE_CHECKING:
    from anomaly_ov.images.sources import Source
    from anomaly_ov.inspector import Inspector
    from anomaly_ov.records import Answer, Finding

app = typer.Typer(add_completion=False)
PROMPT = "> "
HELP = """Type a question and press Enter.
  /new   forget the conversation, keep the picture
  /help  this page
  /quit  leave; so do an empty line and Ctrl-D
Ctrl-C stops an answer that is too long."""
FOR_HELP = "/help for help"
WARNING = f"What it says may be wrong: check what matters. {FOR_HELP}."


@app.command()
def chat(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="One picture; several with --views.")],
    model: brain.Model = "tiny",
    device: brain.Device = "auto",
    dtype: brain.Dtype = "auto",
    views: Annotated[bool, typer.Option("--views", help="The pictures (or a folder's) show one thing.")] = False,
    reading: brain.Reading = None,
    max_tokens: brain.MaxTokens = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            *contexts.OPTION,
            metavar="none|GOOD|FILE.ctx",
            help=f"Good pictures, or a context file, that say what is normal. {contexts.OLD_NAME}",
        ),
    ] = None,
    endpoint: brain.Url = None,
    endpoint_model: brain.EndpointModel = None,
    api_key_env: brain.ApiKeyEnv = None,
    spend_cap: brain.SpendCap = None,
    price_in: brain.PriceIn = None,
    price_out: brain.PriceOut = None,
    timeout: brain.Timeout = None,
    requests_per_minute: brain.PerMinute = None,
    crop: brain.Crop = False,
    image_side: brain.ImageSide = None,
    no_logprobs: brain.NoLogprobs = False,
    no_temperature: brain.NoTemperature = False,
) -> None:
    """Talk about a picture: questions one per line, from the keyboard or a pipe, answered as they come.

    Without a language side and an endpoint, answers are taken from the record, each by itself.

    Exit codes: 0 done, 2 usage, 3 picture unreadable, 4 weights missing, 5 device or memory, 6 no answer from the
    endpoint, 130 interrupted.
    """
    remote = brain.endpoint_config(
        endpoint,
        reading,
        model=endpoint_model,
        api_key_env=api_key_env,
        spend_cap=spend_cap,
        price_in=price_in,
        price_out=price_out,
        timeout_s=timeout,
        requests_per_minute=requests_per_minute,
        crop_top_region=crop,
        image_side=image_side,
        logprobs=no_logprobs,
        temperature=no_temperature,
        max_tokens=max_tokens,
    )
    if views and (remote is not None or context):
        other = "--endpoint" if remote is not None else "--references"
        raise UsageError(f"--views and {other} do not go together", hint="leave out one of them")
    from anomaly_ov.inspector import load

    sources = _sources(images, views=views)
    wanted = contexts.wanted(context or ["none"])
    if wanted.mode not in ("none", "file", "references"):
        raise UsageError(
            f"one picture is no context for itself (--references {wanted.mode})", hint="give good pictures"
        )
    inspector = load(model, device=device, dtype=dtype)
    speaks = remote is None and brain.speaks(inspector, reading)
    findings = _look(inspector, sources, wanted, views=views)
    speaker: brain.Speaker = brain.FromRecord(findings)
    if remote is not None:
        speaker = brain.Remote(remote, findings[0], sources[0])
    elif speaks:
        speaker = brain.BuiltIn(inspector, findings, reading, max_tokens)
    for finding in findings:
        print("\n".join(spoken.summary(finding)), flush=True)
    note(WARNING if speaks or remote is not None else f"{brain.FROM_RECORD}; {FOR_HELP}")
    raise typer.Exit(_converse(speaker))


def _sources(images: list[str], *, views: bool) -> list[Source]:
    """One source, with ``views`` any number."""
    from anomaly_ov.images.sources import expand

    if "-" in images:
        raise UsageError("standard input is for questions, the picture needs a name", hint="write it to a file first")
    sources = expand(images)
    if len(sources) > 1 and not views:
        raise UsageError(
            f"{printable(images[0]) if len(images) == 1 else 'these'}: {len(sources)} pictures, but a conversation is "
            "about one",
            hint="if they show one thing, add --views; for one question about many pictures use 'anomaly-ov ask'",
        )
    return sources


def _look(inspector: Inspector, sources: list[Source], wanted: contexts.Wanted, *, views: bool) -> list[Finding]:
    if views:
        return inspector.inspect_views(sources)
    chosen = contexts.choose(inspector, wanted, sources, batch_size=8)
    contexts.announce(chosen)
    return [inspector.inspect(sources[0], chosen.context)]


def _converse(speaker: brain.Speaker) -> int:
    """Asks until there are no more questions; returns the exit code: that of the last question not answered."""
    typed = sys.stdin is not None and sys.stdin.isatty()
    read = _typed_line() if typed else _piped_line()
    code, answering = 0, False
    while True:
        try:
            answering = False
            line = read()
            if line in ("", "/quit", "/exit"):
                return code
            if line.startswith("/") and " " not in line:
                _obey(speaker, line)
                continue
            answering = True
            _answer(speaker, line)
        except EndpointRefused:
            raise
        except AnomalyOVError as error:
            print_error(error.message, error.hint)
            code = error.exit_code
        except KeyboardInterrupt:
            if not typed:
                raise
            print(" [stopped]" if answering else "", flush=True)
            if not answering:
                note("an empty line or Ctrl-D ends")


def _obey(speaker: brain.Speaker, command: str) -> None:
    if command == "/new":
        speaker.forget()
        note("forgotten")
    elif command == "/help":
        note(HELP)
    else:
        note(f"there is no {printable(command)}; /help shows what there is")


def _typed_line() -> Callable[[], str]:
    """The next line typed, without blanks around it; empty at the end."""
    with suppress(ImportError):  # line editing and history, where there is such a thing
        import readline  # noqa: F401

    def read() -> str:
        try:
            return input(PROMPT).strip()
        except EOFError:
            print()
            return ""

    return read


def _piped_line() -> Callable[[], str]:
    """The next line of standard input, shown behind the prompt, so that the output can be read by itself."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")

    def read() -> str:
        line = sys.stdin.readline().strip() if sys.stdin is not None else ""
        if line:
            print(f"{PROMPT}{spoken.clean(line)}", flush=True)
        return line

    return read


def _answer(speaker: brain.Speaker, line: str) -> None:
    said = False

    def show(text: str) -> None:
        nonlocal said
        said = True
        print(spoken.clean(text), end="", flush=True)

    try:
        answer = speaker.ask(brain.question_of(line), show)
    except AnomalyOVError:
        if said:
            print()
        raise
    print(_ending(answer), flush=True)


def _ending(answer: Answer) -> str:
    """What stands behind an answer that was shown."""
    parts = ["" if answer.text.strip() else "(it said nothing)"]
    if answer.finish == "length":
        parts.append("[...]")
    if answer.p_yes is not None:
        parts.append(f"[P(yes) {answer.p_yes:.2f}]")
    if answer.contradiction:
        parts.append(f"\n{spoken.contradicted(answer.contradiction)}")
    return " ".join(parts)
