# SPDX-License-Identifier: Apache-2.0
"""carom answers UDP requests inside the kernel, from a cache that fronts a userspace server."""

from carom.daemon.service import Reply, Service, run

__all__ = ["Reply", "Service", "run"]
__version__ = "0.1.0"
