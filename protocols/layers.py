# SPDX-License-Identifier: Apache-2.0
"""Teaches scapy the packets of all protocols: by itself, as importing scapy takes long."""

from __future__ import annotations

import importlib

from carom.protocols import SPECS

LAYERS = [importlib.import_module(spec.layers) for spec in SPECS.values() if spec.layers]
"""The modules that define the packets."""
