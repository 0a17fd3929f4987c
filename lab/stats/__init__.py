# SPDX-License-Identifier: Apache-2.0
"""Statistics: distributions, estimates with intervals, and two runs compared."""
