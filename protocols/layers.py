# SPDX-License-Identifier: Apache-2.0
"""Has scapy know the packets of all protocols: apart, for importing scapy takes long."""

from __future__ import annotations

import importlib

from carom.protocols import SPECS

LAYERS = [importlib.import_module(one.layers) for one in SPECS.values() if one.layers]
"""The modules that have them."""
