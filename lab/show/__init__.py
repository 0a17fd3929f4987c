# SPDX-License-Identifier: Apache-2.0
"""How runs are shown: names and numbers, tables, plots, and published figures beside ours."""
