# SPDX-License-Identifier: Apache-2.0
"""A host of the pair: the agent there, its calls, and what it says of the machine."""
