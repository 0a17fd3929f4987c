# SPDX-License-Identifier: Apache-2.0
"""Where the pair of hosts comes from that an experiment runs on."""
