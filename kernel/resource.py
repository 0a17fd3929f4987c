# SPDX-License-Identifier: Apache-2.0
"""The base of every kernel resource of ours: a context manager that removes what it installed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Resource(ABC):
    """Closed when its context is left."""

    @abstractmethod
    def close(self) -> None:
        """Remove what was installed, and nothing else."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
