# SPDX-License-Identifier: Apache-2.0
"""`./run test-vm` as far as it goes without machines."""

from __future__ import annotations

import pytest

from carom.lab import registry
from vm import whole


@pytest.mark.parametrize(
    ("name", "words"),
    [("bouncy", "no experiment 'bouncy'"), ("filter-loss", "filter-loss has no --seconds")],
)
def test_a_mistake_is_said_before_a_box_is_built(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["whole", name])
    assert whole.main() == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", ["bounce", "cache", "hooks", "sizes", "clients", "knee"])
def test_an_experiment_has_what_it_is_given(name: str) -> None:
    settings = registry.settings([registry.named(name)], whole.settings_of(name), short=True)
    assert (settings[name].waits, settings[name].seconds) in [
        (("blocking",), (2.0,)),
        (("blocking",), 2.0),
    ]
