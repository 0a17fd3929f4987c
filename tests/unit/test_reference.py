# SPDX-License-Identifier: Apache-2.0
"""docs/configuration.md says what the settings are: it is made of them, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from carom.cli_serve import known
from carom.daemon.options import LIVE, SHARED
from carom.settings import Field, shown, words

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/configuration.md").read_text()


def takes(field: Field) -> str:
    """What an option takes."""
    option = field.option
    if words(field):
        return ", ".join(f"`{word}`" for word in words(field))
    if field.several:
        return "list of texts"
    kind = {bool: "`true`, `false`", str: "text", float: "number", int: "number"}[field.kind]
    if option.read:
        kind = f'{kind} or text: `"{option.example}"`'
    if option.low is None:
        return kind
    high = "" if option.high is None else f" to {option.high:,.15g}"
    return f"{kind}, {option.low:,.15g}{high or ' or more'}{option.unit}"


def standing(field: Field) -> str:
    """Its default."""
    if field.option.standing:
        return field.option.standing
    if field.default in (None, (), "") or not isinstance(field.default, int | float | str | tuple):
        return "none"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{shown(field.default)}`"


def rows() -> Iterator[str]:
    """The rows of the table of options."""
    serve, front = known()["serve"], known()["front"]
    for name in {**serve, **front}:
        one, other = serve.get(name), front.get(name)
        field = one or other
        assert field
        whose = "both" if one and other else "`serve`" if one else "`front`"
        default = standing(field)
        if one and other and standing(one) != standing(other):
            default = f"{standing(one)}; fronted: {standing(other)}"
        changes = "reload" if name in LIVE else "restart"
        shared = ", shared" if name in SHARED else ""
        what = field.option.help.rstrip(".").replace("|", "\\|")
        yield f"| `{name}` | {whose}{shared} | {takes(field)} | {default} | {changes} | {what} |"


def test_the_table_of_options() -> None:
    """After a change of an option: put what this says is wanted into the file."""
    app, *found = re.findall(r"^\| `\w+` \| (?:both|`).*\|$", TEXT, re.MULTILINE)
    wanted = list(rows())
    assert app.startswith("| `app` | `serve` | text |")
    assert found == wanted, "\n".join(wanted)
