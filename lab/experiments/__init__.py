# SPDX-License-Identifier: Apache-2.0
"""The experiments, a folder for each kind."""
