"""`main`, the entry point: runs a command and catches what it raises, once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from deployer.cli.commands import cli
from deployer.client.errors import ClientError, InvalidInput
from deployer.client.output.words import printable
from deployer.core.errors import DeployerError, SettingsError
from deployer.settings import translate_original_flags

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit codes: something went wrong; a flag, variable or file is wrong; Ctrl-C (128 + SIGINT, as shells have it)."""

_OWN_FLAGS = ("--help", "-h", "--version")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `deployer` with `argv` (default: the process's arguments) and return the exit code.

    Whatever goes wrong in a way that the Deployer knows is one line on standard error, never a traceback.
    """
    _open_what_is_closed()
    arguments = arrange(sys.argv[1:] if argv is None else argv)
    try:
        code = cli.main(args=arguments, prog_name="deployer", standalone_mode=False)
    except (click.ClickException, DeployerError) as error:
        return _report(error)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough (`deployer plugins | head`); there is nobody to flush the rest to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        # A full disk, most of the time: what is printed may go to a file.
        if error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        what = error.filename or "standard output"
        return _report(DeployerError(f"{what} cannot be used ({error.strerror or error}); check its disk"))
    return code if isinstance(code, int) else 0


def _open_what_is_closed() -> None:
    """A standard stream with which the process was not started (`>&-`) is nothing to read, and nobody who listens."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: that of the stream
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def arrange(argv: Sequence[str]) -> list[str]:
    """The arguments with the command in front: the original knew no commands, so flags alone mean `serve`.

    >>> arrange(["-kubernetes", "http://k8s:8080", "-etcd=http://etcd:2379"])
    ['serve', '--kubernetes=http://k8s:8080', '--etcd=http://etcd:2379']
    """
    arguments = list(argv)
    if arguments[:1] == ["help"]:
        return [*arguments[1:], "--help"]
    if arguments and arguments[0].startswith("-") and arguments[0] not in _OWN_FLAGS:
        arguments.insert(0, "serve")
    if arguments and arguments[0] == "serve":
        arguments[1:] = translate_original_flags(arguments[1:])
    return arguments


def _report(error: Exception) -> int:
    """Say it in a line, and return the exit code."""
    sentence = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # a group without a command: its help says it all
        click.echo(printable(sentence), err=True)
        return MISUSED
    if isinstance(error, click.UsageError) and error.ctx:
        sentence += f" (see `{error.ctx.command_path} --help`)"
    prefix = "" if isinstance(error, InvalidInput) and "\n" in sentence else "deployer: "
    click.echo(printable(f"{prefix}{sentence}"), err=True)
    if isinstance(error, ClientError):
        return int(error.exit_code)
    return MISUSED if isinstance(error, click.ClickException | SettingsError) else FAILED
