# SPDX-License-Identifier: Apache-2.0
"""A host of the pair: its agent, the agent's calls, and the machine's environment and counts."""
