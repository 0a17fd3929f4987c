# SPDX-License-Identifier: Apache-2.0
"""The lab: clients, experiments, statistics and plots that show what the fast path is worth."""
