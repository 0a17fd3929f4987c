# SPDX-License-Identifier: Apache-2.0
"""The manual page carom(1) and shells' completion, made of what the commands say of themselves.

`python -m carom.manual FOLDER` writes them below a /usr/share, dated SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import gzip
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]
from typer.main import get_command

from carom import __version__, cli

COMPLETIONS = {
    "bash": "bash-completion/completions/carom",
    "zsh": "zsh/vendor-completions/_carom",
    "fish": "fish/vendor_completions.d/carom.fish",
}
"""Where Debian's shells look for completions, below /usr/share."""

_SHORT = "answer UDP requests in the kernel, from a cache that fronts a userspace server"

_BEFORE = f"""\
.SH NAME
carom \\- {_SHORT}
.SH SYNOPSIS
.B carom
.RI [ OPTION ...]
.I COMMAND
.RI [ ARGUMENT ...]
.SH DESCRIPTION
An XDP or TC program answers UDP requests that a server answered before. The server is a Python
service
.RB ( "carom serve" ),
or somebody else's server on this host
.RB ( "carom front" ),
which is not changed for it. Requests that are not answered go up to the server as ever.
"""

_AFTER = """\
.SH EXIT STATUS
.TP
.B 0
All went well; or a service ended as it should, by SIGINT or SIGTERM.
.TP
.B 1
Something that is needed was not there, or was refused; a message says what, and a hint what to do.
.TP
.B 2
The command line, or a file that it names, is wrong.
.SH FILES
.TP
.B /etc/carom/carom.toml
What
.B carom run
runs, if no other file is named.
.SH ENVIRONMENT
.TP
.B CAROM_RUN
The folder of control sockets, instead of /run/carom (root), $XDG_RUNTIME_DIR/carom or
/tmp/carom-UID.
.TP
.B CAROM_PROGRAMS
Object files to load, as by
.BR \\-\\-programs .
.TP
.B CAROM_COMPILER
What compiles the programs where there is no object file: bcc, or the name of a clang.
.TP
.B CAROM_CACHE
The folder of object files that were compiled here.
.SH SEE ALSO
.BR bpf (2),
.BR ip\\-link (8),
.BR tc (8),
.BR bpftool (8)
"""


def completion(shell: str) -> str:
    """The script by which a shell (COMPLETIONS) completes carom's commands."""
    script: str = get_completion_script(
        prog_name="carom", complete_var="_CAROM_COMPLETE", shell=shell
    )
    return script.strip() + "\n"


def page(made: int) -> str:
    """The page in the language of man(7); `made` is its date, by Unix time."""
    command: Any = get_command(cli.app)
    context: Any = command.make_context("carom", [], resilient_parsing=True)
    date = datetime.fromtimestamp(made, UTC).strftime("%Y-%m-%d")
    lines = [f'.TH CAROM 1 "{date}" "carom {__version__}" "User Commands"', _BEFORE.rstrip()]
    lines += [".SH OPTIONS", *_options(command, context), ".SH COMMANDS"]
    for name in command.list_commands(context):
        lines += _command(command.get_command(context, name), context, name)
    return "\n".join([*lines, _AFTER])


def _command(command: Any, parent: typer.Context, name: str) -> Iterator[str]:
    """A command, and the commands in it."""
    context: Any = typer.Context(command, info_name=name, parent=parent, resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    inner = command.list_commands(context) if hasattr(command, "list_commands") else []
    if not inner:
        yield f'.SS "{_escaped(f"{context.command_path} {usage}")}"'
        yield from _paragraphs(command.help or "")
        yield from _options(command, context)
    for one in inner:
        yield from _command(command.get_command(context, one), context, one)


def _options(command: Any, context: typer.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and (parameter.name != "help" or not context.parent):
            yield ".TP"
            yield f".B {_escaped(record[0])}"
            yield from _paragraphs(record[1] or "")


def _paragraphs(text: str) -> Iterator[str]:
    """Text by paragraphs; those that begin with a backspace, as click has them, stay in lines."""
    for number, part in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        kept = part.lstrip().startswith("\b")
        if kept:
            yield ".nf"
        for line in part.replace("\b", "").strip("\n").splitlines():
            yield _escaped(line if kept else line.strip())
        if kept:
            yield ".fi"


def _escaped(text: str) -> str:
    """Text that man(7) shows as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return re.sub(r"^([.'])", r"\\&\1", text)


def write(share: Path, made: int) -> None:
    """Write the page and the completions below a /usr/share."""
    files = {share / path: completion(shell).encode() for shell, path in COMPLETIONS.items()}
    files[share / "man/man1/carom.1.gz"] = gzip.compress(page(made).encode(), mtime=0)
    for path, content in files.items():
        path.parent.mkdir(parents=True)
        path.write_bytes(content)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(os.environ.get("SOURCE_DATE_EPOCH", 0)))
