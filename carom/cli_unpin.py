# SPDX-License-Identifier: Apache-2.0
"""`carom unpin`: take away what a carom with --pin has left."""

from __future__ import annotations

from carom.cli_options import App

app = App()


@app.command()
def unpin() -> None:
    """Take away what an ended carom with --pin has left attached in this network namespace.

    Requests go to the server alone then, and the cache is gone.
    """
    from carom.daemon.pin_folder import folder
    from carom.daemon.pinned import unpin
    from carom.kernel.pins import is_link

    names = unpin(folder())
    links = sum(map(is_link, names))
    print(f"unpinned {links} links and {len(names) - links} maps")
