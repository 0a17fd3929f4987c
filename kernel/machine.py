# SPDX-License-Identifier: Apache-2.0
"""What this machine's CPUs do by themselves."""

from __future__ import annotations

import platform

IN_ORDER = platform.machine() == "x86_64"
"""Whether other CPUs see this one's stores in order, and it does its own loads in order."""
