# SPDX-License-Identifier: Apache-2.0
"""The manual page and completions are of the commands that there are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from carom import cli, manual

PAGE = manual.page(0)


def commands(command: Any, context: typer.Context) -> list[tuple[str, list[str]]]:
    """Each command without commands in it, by its path, with its options."""
    inner = command.list_commands(context) if hasattr(command, "list_commands") else []
    if not inner:
        names = [name for parameter in command.get_params(context) for name in parameter.opts]
        return [(context.command_path, [name for name in names if name.startswith("--")])]
    found = []
    for name in inner:
        one = command.get_command(context, name)
        found += commands(one, typer.Context(one, info_name=name, parent=context))
    return found


ALL = commands(get_command(cli.app), typer.Context(get_command(cli.app), info_name="carom"))


def test_it_has_every_command_and_option() -> None:
    assert len(ALL) > 25
    sections = PAGE.split("\n.SS ")
    for path, options in ALL:
        (section,) = [one for one in sections if one.startswith(f'"{manual._escaped(path)} ')]
        for option in options:
            assert manual._escaped(option) in section or option == "--help", (path, option)


def test_of_one_date_it_is_one() -> None:
    assert manual.page(0) == PAGE
    assert '.TH CAROM 1 "1970-01-01"' in PAGE


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_groff_has_no_complaint() -> None:
    argv = ["groff", "-ww", "-man", "-Tutf8", "-z"]
    done = subprocess.run(argv, input=PAGE, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("text", [".TH is no request", "'quoted", "a\\b", 'say "yes"', "--x"])
@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_any_text_is_shown_as_it_is(text: str) -> None:
    argv = ["groff", "-man", "-Tascii", "-P-cbou"]
    roff = ".TH X 1\n.SH X\n" + manual._escaped(text)
    done = subprocess.run(argv, input=roff, capture_output=True, text=True, check=True)
    assert text in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("carom se", ["serve"]),
        ("carom cache fl", ["flush"]),
        ("carom serve --ho", ["--hook"]),
        ("carom serve --hook ", ["xdp", "tc", "none"]),
    ],
)
def test_bash_completes(words: str, said: list[str]) -> None:
    """By bash's own way: the function that the script says, called for the words so far."""
    ask = f"""{manual.completion("bash")}
COMP_WORDS=({words}{" ''" if words.endswith(" ") else ""})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_carom_completion carom
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONSAFEPATH": "1"}
    argv = ["bash", "-c", ask]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == said, done.stderr
