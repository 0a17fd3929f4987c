# SPDX-License-Identifier: Apache-2.0
"""`carom metrics`: a running carom's counters for Prometheus, once or by HTTP."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import socketserver
import stat
import sys
import threading
from pathlib import Path
from typing import Annotated, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import typer

from carom.cli_cache import Pid
from carom.cli_filter_maps import with_maps
from carom.cli_options import App
from carom.daemon import control
from carom.errors import CaromError, UsageError

app = App()

_PATIENCE = 5.0
"""Seconds for a carom to answer: Prometheus waits for ten."""


@app.command()
def metrics(
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS:]PORT|PATH",
            help="Serve them by HTTP until a signal comes: at a port, the loopback's if no address "
            "is given, or at a Unix socket, whose path has a slash. Default: print them once.",
        ),
    ] = None,
    pid: Pid = None,
) -> None:
    """Show a running carom's counters as metrics of Prometheus.

    One process asks and serves, and another answers packets: no HTTP comes near the latter.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app

        from carom.map_metrics import ENTRIES
        from carom.metrics import Metrics
    except ImportError as error:
        raise CaromError(
            f"metrics need the Python package {error.name}",
            hint="pip install 'carom[metrics]', or python3-prometheus-client",
        ) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Metrics(lambda: with_maps(pid, _PATIENCE, ENTRIES)))
    if listen is None:
        control.call("status", pid, _PATIENCE)  # none is an error here
        print(generate_latest(registry).decode(), end="", flush=True)
        return
    server = _server(listen)
    server.set_app(make_wsgi_app(registry))
    _serve(server, listen)


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: each scrape would be a line."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hangs up in the middle is no news; anything else is a fault of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _UnixServer(_Server):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, _ = self.socket.accept()
        return connection, ("unix", 0)  # wsgiref wants a host and a port


def _server(listen: str) -> WSGIServer:
    """A server that listens there. Raises UsageError, CaromError."""
    kind: type[_Server]
    where: Any
    if "/" in listen:
        kind, where = _UnixServer, listen
        _remove_stale(Path(listen))
    else:
        address, port = _endpoint(listen)
        kind = _Server6 if address.version == 6 else _Server
        where = str(address), port
    try:
        server = kind(where, _Handler)
    except OSError as error:
        raise CaromError(
            f"cannot serve metrics at {listen}: {error.strerror or error}",
            hint="--listen takes [ADDRESS:]PORT of this host, or a path with a slash",
        ) from error
    if kind is _UnixServer:
        Path(listen).chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IWGRP)
    return server


def _remove_stale(path: Path) -> None:
    """Remove the socket of one that was killed; anything else stays."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            pass


def _endpoint(listen: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    host, _, port = listen.rpartition(":")
    try:
        number = int(port)
        if not 0 < number < 65_536:
            raise ValueError
        return ipaddress.ip_address(host.strip("[]") or "127.0.0.1"), number
    except ValueError as error:
        raise UsageError(
            f"--listen {listen} is no address and port",
            hint="9750, 127.0.0.1:9750, [::1]:9750 or /run/carom-metrics.sock",
        ) from error


def _serve(server: WSGIServer, listen: str) -> None:
    from carom.kernel.signals import Stop, ending, held, until_stopped

    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    try:
        with contextlib.suppress(Stop), ending():
            with held():
                thread.start()
            print(f"metrics at {listen}", flush=True)
            until_stopped()
    finally:
        server.shutdown()
        server.server_close()
        if "/" in listen:
            Path(listen).unlink(missing_ok=True)
