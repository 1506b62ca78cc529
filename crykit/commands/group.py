"""Subcommands found through the entry points `crykit.commands`, and errors turned into one line."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, entry_points

import click

from crykit import __version__
from crykit.errors import CrykitError, MissingPart

ENTRY_POINTS = "crykit.commands"
DEFAULT_COMMAND = "listen"

# Which extra brings a module; a workshop's own commands name their own extra first.
_EXTRA_OF_COMMAND = {"train": "train", "data": "train", "export": "export", "bench": "bench"}
_EXTRA_OF_MODULE = {
    "ai_edge_litert": "peers",
    "executorch": "export",
    "lightning_fabric": "train",
    "matplotlib": "train",
    "onnx": "export",
    "onnxscript": "export",
    "opensmile": "compare",
    "paho": "mqtt",
    "psutil": "bench",
    "scipy": "train",
    "sklearn": "train",
    "torch": "train",
    "torchao": "export",
    "torchaudio": "train",
    "transformers": "peers",
    "webdataset": "train",
}
_OPTIONAL_EXTRAS = ("compare", "peers")  # no command's own extra brings them


class LazyGroup(click.Group):
    """Knows its commands by name and imports one when it is needed."""

    def _points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=ENTRY_POINTS)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        point = self._points().get(cmd_name)
        if point is None:
            return None
        try:
            return point.load()
        except ImportError as error:
            missing = explain_missing(cmd_name, error)
            if missing is None or not ctx.resilient_parsing:
                raise missing or error from None
            return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows: list[tuple[str, str]] = []
        for name in self.list_commands(ctx):
            try:
                command = self.get_command(ctx, name)
            except (ImportError, AttributeError, MissingPart):
                rows.append((name, "(not installed)"))
                continue
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(formatter.width - 6 - len(name))))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crykit")
def group() -> None:
    """Find infant cries in live sound and in recordings, on this device.

    Without a command, `crykit` listens to the default microphone.
    """


def explain_missing(command: str | None, error: ImportError) -> MissingPart | None:
    """The error for a module that an extra would bring, None where no extra does."""
    module = (error.name or "").partition(".")[0]
    if module not in _EXTRA_OF_MODULE:
        return None
    extra = _EXTRA_OF_MODULE[module]
    if extra not in _OPTIONAL_EXTRAS:
        extra = _EXTRA_OF_COMMAND.get(command or "", extra)
    what = f"crykit {command}" if command else "crykit"
    return MissingPart(
        f"`{what}` needs {module}, which is not installed: pip install 'crykit[{extra}]'"
    )


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code; every expected error is one line on stderr."""
    if os.environ.get("CRYKIT_DEBUG"):
        return _invoke(arguments or _default())
    command = next((a for a in arguments if not a.startswith("-")), None)
    try:
        return _invoke(arguments or _default())
    except CrykitError as error:
        return _fail(str(error), error.exit_code)
    except click.UsageError as error:
        hint = f"; see `{error.ctx.command_path} --help`" if error.ctx else ""
        return _fail(error.format_message().rstrip(".") + hint, 2)
    except click.ClickException as error:
        return _fail(error.format_message(), 3)
    except click.Abort:
        return 130
    except BrokenPipeError:
        raise
    except ImportError as error:
        missing = explain_missing(command, error)
        if missing is not None:
            return _fail(str(missing), missing.exit_code)
        return _fail(f"this installation is broken: {error}", 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 3)
    except Exception as error:
        return _fail(
            f"a fault in crykit itself, {type(error).__name__}: {error}; "
            "CRYKIT_DEBUG=1 shows where",
            1,
        )


def _default() -> list[str]:
    """`crykit` alone listens; without the app's commands it shows what there is."""
    points = entry_points(group=ENTRY_POINTS)
    return [DEFAULT_COMMAND] if DEFAULT_COMMAND in points.names else ["--help"]


def _invoke(arguments: list[str]) -> int:
    try:
        with group.make_context("crykit", arguments) as context:
            group.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as leave:
        sys.stdout.flush()
        return leave.exit_code
    return 0


def _fail(message: str, code: int) -> int:
    click.echo("crykit: " + " ".join(message.split()), err=True)
    return code
