# SPDX-License-Identifier: Apache-2.0
"""How runs are shown: names and numbers, tables, plots, the report, the published beside ours."""
