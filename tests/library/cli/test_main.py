"""The command line as a whole: help, exit codes, one-line errors, tracebacks only on request."""

from __future__ import annotations

import os
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import typer

from anomaly_ov import errors
from anomaly_ov.cli import extras, main, verbs
from anomaly_ov.cli.main import run
from anomaly_ov.cli.verbs import own_verbs


def raising(error: BaseException) -> types.ModuleType:
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise error

    module = types.ModuleType("failing")
    module.app = app  # type: ignore[attr-defined]
    return module


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(main, "import_module", lambda name: raising(error))
    return run([*options, "doctor"])


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    for verb in own_verbs():
        assert f" {verb} " in out


SEE = "see 'anomaly-ov"


@pytest.mark.parametrize("verb", own_verbs())
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert f"anomaly-ov {verb}" in capsys.readouterr().out


def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *verbs: str) -> None:
    """A distribution that adds ``verbs``, each of which prints "fine"."""
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[anomaly_ov.verbs]\n" + "".join(f"{verb} = other_verb:it\n" for verb in verbs)
    )
    (tmp_path / "other_verb.py").write_text(
        "import typer\nit = typer.Typer()\n@it.command()\ndef verb() -> None:\n    print('fine')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_other_distributions_add_verbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(tmp_path, monkeypatch, "other", "schema")
    assert run(["--help"]) == 0
    assert " other " in capsys.readouterr().out
    assert run(["other"]) == 0
    assert capsys.readouterr().out == "fine\n"
    assert run(["schema"]) == 0
    assert capsys.readouterr().out.startswith("{"), "a verb of ours stays ours"


def test_verbs_of_others_are_not_looked_for_before_ours_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "other_verbs", lambda: pytest.fail("they were looked for"))
    assert run(["schema", "--help"]) == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("anomaly-ov ")


@pytest.mark.parametrize(
    ("args", "part", "next_step"),
    [
        (["inspct"], "Did you mean 'inspect'?", SEE),
        (["inspect"], "PATH", SEE),
        (["inspect", "x.png", "--no-such-option"], "--no-such-option", SEE),
        (["inspect", "x.png", "--batch-size", "0"], "--batch-size", SEE),
        (["inspect", "x.png", "--threshold", "2"], "--threshold", "it is compared with 'score'"),
        (["inspect", "x.png", "--map", "gif"], "--map", SEE),
    ],
)
def test_usage_errors_are_one_line_and_a_hint(
    args: list[str], part: str, next_step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    error, hint = captured.err.splitlines()
    assert error.startswith("error: ")
    assert part in error
    assert hint.startswith(f"hint: {next_step}")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("no such thing", hint="try another"), 2),
        (errors.ConfigError("field 'x'", hint="y"), 2),
        (errors.UnreadableImage("broken", hint="look"), 3),
        (errors.WeightsError("no weights", hint="fetch"), 4),
        (errors.MissingExtra("fastapi", "server"), 4),
        (errors.DeviceError("no device", hint="cpu"), 5),
    ],
)
def test_each_error_has_its_exit_code(
    error: errors.AnomalyOVError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(error, monkeypatch) == code
    assert capsys.readouterr().err == f"error: {error.message}\nhint: {error.hint}\n"


def test_missing_extra_says_the_pip_line() -> None:
    assert errors.MissingExtra("fastapi", "server").hint == 'pip install "anomaly-ov[server]"'


def test_the_import_of_what_is_not_installed_is_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert fail_with(ModuleNotFoundError("no", name="tokenizers.models"), monkeypatch) == 4
    assert capsys.readouterr().err.splitlines() == [
        "error: this needs the package 'tokenizers', which is not installed",
        'hint: pip install "anomaly-ov[torch]"',
    ]
    assert fail_with(ModuleNotFoundError("no", name="anomaly_ov.nothing"), monkeypatch) == 70
    monkeypatch.setattr(extras, "find_spec", lambda name: object())
    assert fail_with(ModuleNotFoundError("no", name="torch.part"), monkeypatch) == 70


@pytest.mark.parametrize(
    ("args", "extra"),
    [
        (["train", "expert"], "lab"),
        (["--debug", "models", "export", "x"], "lab"),
        (["models", "create", "x"], "torch"),
        (["models", "list"], None),
        (["inspect", "train"], None),
        (["train", "--help"], None),
    ],
)
def test_verbs_that_need_an_extra(args: list[str], extra: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    if extra is None:
        extras.require_extra(args)
        return
    with pytest.raises(errors.MissingExtra) as raised:
        extras.require_extra(args)
    assert raised.value.hint == f'pip install "anomaly-ov[{extra}]"'


def test_a_bug_is_one_line_and_says_how_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ANOMALY_OV_DEBUG", raising=False)
    assert fail_with(ZeroDivisionError("division\nby zero"), monkeypatch) == 70
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: ZeroDivisionError: division by zero"
    assert "--debug" in hint


@pytest.mark.parametrize("by_option", [True, False])
def test_traceback_on_request(
    by_option: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANOMALY_OV_DEBUG", "0" if by_option else "1")
    fail_with(ZeroDivisionError("oops"), monkeypatch, *(["--debug"] if by_option else []))
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(KeyboardInterrupt(), monkeypatch) == 130
    assert "interrupted" in capsys.readouterr().err


def test_unwritable_place_is_the_users_to_solve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(PermissionError(13, "Permission denied", "/out"), monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: Permission denied: /out\nhint: ")


@pytest.mark.parametrize(
    ("module", "shown"),
    [
        ("PIL.TiffImagePlugin", 0),
        ("torch", 0),
        ("transformers.x", 0),
        ("torchlike", 1),
        ("anomaly_ov_lab.data.leakage", 1),
    ],
)
def test_warnings_of_libraries_are_not_shown(module: str, shown: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run(["--version"]) == 0
        warnings.warn_explicit("odd", UserWarning, "file.py", 1, module=module)
    assert len(caught) == shown


def test_asked_for_warnings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", ["always"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run(["--version"]) == 0
        warnings.warn_explicit("odd", UserWarning, "file.py", 1, module="PIL")
    assert len(caught) == 1


def test_console_script_exits_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["anomaly-ov", "no-such-verb"])
    with pytest.raises(SystemExit) as exit_:
        main.main()
    assert exit_.value.code == 2


@pytest.mark.parametrize("size", ["", "1", "2", "many"])
def test_only_a_process_of_torchrun_skips_the_interpreters_shutdown(size: str) -> None:
    """``WORLD_SIZE`` alone says nothing: clusters set it too, to anything."""
    script = "import atexit; atexit.register(print, 'shut down'); from anomaly_ov.cli.main import leave; leave(3)"
    plain = {name: value for name, value in os.environ.items() if name != "TORCHELASTIC_RUN_ID"} | {"WORLD_SIZE": size}
    for environment, printed in ((plain, "shut down\n"), (plain | {"TORCHELASTIC_RUN_ID": "x"}, "")):
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (3, printed, "")
