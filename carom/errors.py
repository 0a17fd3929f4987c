# SPDX-License-Identifier: Apache-2.0
"""The errors that carom raises; each names what was wrong, and its hint says what to do.

    CaromError
    ├── UsageError          a wrong option, configuration or argument (exit 2)
    │   └── ConfigurationError  all that is wrong with a configuration file
    ├── PrivilegeError      this needs a capability that the process lacks
    ├── BPFError            the kernel or BCC refused a program or map
    │   ├── CompileError    BCC is missing, or clang refused the source
    │   ├── ObjectError     an object file that is damaged, or of another carom
    │   └── VerifierError   the kernel's verifier refused the program
    ├── InterfaceError      an interface that is not there or cannot take the program
    │   └── BusyError       another program is attached to it
    ├── FirewallError       the firewall drops by default what would be answered before it
    ├── ServerError         the UDP server cannot start or go on
    ├── RegistryError       a registry that is not there or refuses; or oras is missing
    ├── ControlError        no running carom, or it refused a request
    └── ExperimentError     a pair or an experiment that cannot run, or whose counts disagree
        └── HostError       a host of a pair that is not as it must be
            ├── UnreachableError    no connection to it, or one that broke
            ├── HostKeyError        its key is unknown, or another one than before
            └── LoginError          it does not let us in, or not become root

If the cause is a library's exception, it is chained.
"""

from __future__ import annotations


class CaromError(Exception):
    """Something that the user can understand and act on.

    `hint` says what to do about it; `details` holds what only `-v` shows (a verifier log).
    `passing` is True if what is missing may still come: `carom front --wait` waits for it. `trap`
    is the name of the check of `carom doctor` that finds it; "" where none has it for its own.
    `about` names the options that it is about, as far as that is known: the wrong one first.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        details: str | None = None,
        passing: bool = False,
        trap: str = "",
        about: tuple[str, ...] = (),
    ):
        super().__init__(message)
        self.hint = hint
        self.details = details
        self.passing = passing
        self.trap = trap
        self.about = about


class UsageError(CaromError):
    """A wrong option, configuration or argument."""

    exit_code = 2


class ConfigurationError(UsageError):
    """All that is wrong with a configuration file, a line for each."""


class PrivilegeError(CaromError):
    """The process lacks a capability."""


class BPFError(CaromError):
    """The kernel or BCC refused a program or map."""


class CompileError(BPFError):
    """BCC is missing, or clang refused the source."""


class ObjectError(BPFError):
    """An object file that cannot be loaded: damaged, foreign, or of another carom."""


class VerifierError(BPFError):
    """The kernel's verifier refused the program."""


class InterfaceError(CaromError):
    """An interface that is not there or cannot take the program."""


class BusyError(InterfaceError):
    """Another program is attached to the interface."""


class FirewallError(CaromError):
    """The firewall drops by default what would be answered before it."""


class ServerError(CaromError):
    """The UDP server cannot start or go on."""


class RegistryError(CaromError):
    """A registry that cannot be reached, or that refuses."""


class ControlError(CaromError):
    """No running carom, or it refused a request."""


class ExperimentError(CaromError):
    """A pair or an experiment that cannot run, or whose counts disagree."""


class HostError(ExperimentError):
    """A host of a pair that cannot be used as it is."""


class UnreachableError(HostError):
    """No connection to a host, or one that broke."""


class HostKeyError(HostError):
    """A host's key is unknown, or another one than before."""


class LoginError(HostError):
    """A host does not let us in, or not become root."""
