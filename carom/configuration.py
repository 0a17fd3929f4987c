# SPDX-License-Identifier: Apache-2.0
"""A configuration: services and their options, of a file, the command line, an app, and defaults.

It is read and checked as a whole before anything is done, and all that is wrong is told at once.
Reading changes nothing and asks the kernel nothing; it imports the modules of each `app`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from carom import toml_lines
from carom.daemon import front as fronting
from carom.daemon.front import Front, Wishes
from carom.daemon.options import Options
from carom.daemon.together import Member
from carom.daemon.together import conflicts as together
from carom.errors import ConfigurationError, UsageError
from carom.protocols import SPECS
from carom.settings import Field, fields, taken
from carom.toml_lines import NotTOML, written

if TYPE_CHECKING:
    from carom.daemon.service import Service

STANDARD = Path("/etc/carom/carom.toml")
"""The file of `carom run`, unless another one is named."""

Kind = Literal["serve", "front"]
"""A Python service of carom's, or somebody else's server that carom is in front of."""

BYTES_MAX = 2**20


class Origin(NamedTuple):
    """Where a value comes from, and what messages call it: `service[1].ttl`, `--ttl`."""

    source: Literal["file", "command line", "app", "default"]
    name: str = ""
    line: int | None = None


class Planned(NamedTuple):
    """A service that is to run: what it is, its options, and where each comes from."""

    kind: Kind
    app: str | None
    service: Service | None
    options: Options
    wishes: Wishes
    origins: dict[str, Origin]
    at: Origin

    def made(self) -> Service | Front:
        """The service itself; a Python service has its options from now on."""
        if self.service:
            self.service.options = self.options
            return self.service
        return Front(self.options, self.wishes)

    def values(self) -> dict[str, Any]:
        """Its options' values, in their order."""
        all = {**msgspec.structs.asdict(self.options), **msgspec.structs.asdict(self.wishes)}
        return {name: all[name] for name in self.origins}


class Plan(NamedTuple):
    """What is to run, where, and which file says so."""

    file: Path | None
    interfaces: list[str]
    interfaces_from: Origin
    services: list[Planned]


class Problem(NamedTuple):
    """Something that is wrong."""

    origin: Origin
    error: UsageError

    def told(self, file: Path) -> str:
        """Where, and what: `carom.toml:12: service[1].ttl: 'soon' is not a duration`."""
        source, name, line = self.origin
        where = [f"{file}" if line is None else f"{file}:{line}", name]
        if source == "command line":
            where = [name]
        return ": ".join([*filter(None, where), str(self.error)])


class Configuration:
    """Reads a configuration, again and again if asked to."""

    def __init__(
        self,
        known: Mapping[Kind, Mapping[str, Field]],
        file: Path | None = None,
        *,
        kind: Kind | None = None,
        given: Mapping[str, Any] | None = None,
        app: str | None = None,
        interfaces: Sequence[str] = (),
    ):
        """`known` are the options of each kind. Without a file there is one service.

        `given`, `app` and `interfaces` are the command line's, and override the file. Where no
        `kind` is said, a service that has an `app` is Python's, and any other is fronted.
        """
        self.file = file
        self._known = known
        self._kind = kind
        self._given = dict(given or {})
        self._app = app
        self._interfaces = list(interfaces)
        self._declared: dict[Service, Options] = {}
        """The options of apps as they were before any file: each reading begins with these."""

    def read(self) -> Plan:
        """Raises ConfigurationError with all that is wrong; UsageError where there is no file."""
        reading = _Reading(self)
        plan = reading.plan()
        problems = reading.problems
        if not problems and plan:
            return plan
        if not self.file:
            raise problems[0].error
        raise refusal(problems, self.file)

    def loaded(self, app: str) -> tuple[Service, Options]:
        """A Python service, and the options that it came with. Raises UsageError."""
        from carom.apps import load

        service = load(app)
        return service, self._declared.setdefault(service, service.options)


def refusal(problems: Sequence[Problem], file: Path) -> ConfigurationError:
    """One error for all; a single one keeps its hint and details.

    What is wrong with an option of all services is told once.
    """
    problems = list({(one.origin, str(one.error)): one for one in problems}.values())
    if len(problems) == 1:
        error = problems[0].error
        said = problems[0].told(file)
        return ConfigurationError(said, hint=error.hint, details=error.details)
    lines = [f"{file} has {len(problems)} errors"]
    for problem in sorted(problems, key=lambda one: (one.origin.line is None, one.origin.line)):
        hint = f" ({problem.error.hint})" if problem.error.hint else ""
        lines.append(f"{problem.told(file)}{hint}")
    return ConfigurationError("\n".join(lines))


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            read = opened.read(BYTES_MAX + 1)
        if len(read) > BYTES_MAX:
            raise UsageError(f"{file} is too large for a configuration", hint="1 MiB at most")
        return read.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise NotTOML("not UTF-8", line) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {file}: {why}", hint="see docs/configuration.md") from error


def _taken(field: Field, value: Any) -> Any:
    """An option's value of an untyped one. Raises UsageError."""
    if field.name == "protocol" and isinstance(value, str):
        value = value.lower()
    return taken(field, value, Options if field.name in Options.__struct_fields__ else Wishes)


def _both_said(origins: Mapping[str, Origin]) -> Iterator[UsageError]:
    """Two options of which a file has one instead of the other."""
    if {origins["memory"].source, origins["capacity"].source} == {"file"}:
        yield UsageError(
            "memory is in the place of a capacity, and both are said",
            hint="leave one out",
            about=("memory", "capacity"),
        )


class _Reading:
    """One reading: what it finds wrong is in `problems`."""

    def __init__(self, configuration: Configuration):
        self._from = configuration
        self.problems: list[Problem] = []
        self._lines: dict[str, int] = {}
        """The file's lines, by the names of what is on them."""

    def _wrong(self, origin: Origin, said: str, hint: str | None = None) -> None:
        self.problems.append(Problem(origin, UsageError(said, hint=hint)))

    def _at(self, *path: str | int) -> Origin:
        name = written(path)
        return Origin("file", name, self._lines.get(name))

    def plan(self) -> Plan | None:
        """What is to run; None where that cannot be told."""
        file, values = self._from.file, dict[str, Any]()
        if file:
            try:
                values, lines = toml_lines.located(_text(file))
                self._lines = {written(path): line for path, line in lines.items()}
            except NotTOML as wrong:
                why = f"it is not TOML: {wrong}"
                self._wrong(Origin("file", "", wrong.line), why, "see docs/configuration.md")
                return None
        interfaces, origin = self._interfaces(values.pop("interfaces", []))
        tables = self._tables(values.pop("service", [])) if file else [{}]
        services = list(self._services(values, tables))
        planned = [service for service in services if service]
        if planned and len(planned) == len(tables):
            members = [Member(one.options, one.kind == "front") for one in planned]
            for number, error in together(members, interfaces):
                self._conflict(planned[number or 0], number, error)
        return Plan(file, interfaces, origin, planned)

    def _interfaces(self, value: Any) -> tuple[list[str], Origin]:
        said = "interfaces" in self._lines
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            self._wrong(
                self._at("interfaces"), "interfaces is a list of names", 'interfaces = ["eth0"]'
            )
            value = ["?"]
        if self._from._interfaces:
            return self._from._interfaces, Origin("command line", "--interface")
        return value, self._at("interfaces") if said else Origin("default", "interfaces")

    def _tables(self, value: Any) -> list[dict[str, Any]]:
        listed = isinstance(value, list) and all(isinstance(table, dict) for table in value)
        if not listed or not value:
            self._wrong(
                self._at("service") if value else Origin("file"),
                "it names no service",
                "each has a [[service]] table",
            )
            return []
        return list(value)

    def _services(
        self, common: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]
    ) -> Iterator[Planned | None]:
        kinds = [self._kind_of(common, table) for table in tables]
        known = {name for kind in kinds for name in self._names(kind)}
        for name in common:
            if known and name not in known:
                self._unknown(self._at(name), name, known, kinds[0])
        apps: list[Service] = []
        for number, (kind, table) in enumerate(zip(kinds, tables, strict=True)):
            names = self._names(kind)
            found = {name: self._at(name) for name in common if name in names}
            for name in table:
                origin = self._at("service", number, name)
                if name in names:
                    found[name] = origin
                else:
                    self._unknown(origin, name, names, kind)
            values = {**common, **table}
            yield self._service(number, kind, {n: (values[n], at) for n, at in found.items()}, apps)

    def _kind_of(self, common: Mapping[str, Any], table: Mapping[str, Any]) -> Kind:
        if self._from._kind:
            return self._from._kind
        return "serve" if "app" in table or "app" in common else "front"

    def _names(self, kind: Kind) -> set[str]:
        return {*self._from._known[kind], *(("app",) if kind == "serve" else ())}

    def _unknown(self, origin: Origin, name: str, names: set[str], kind: Kind) -> None:
        others = {"serve": "front", "front": "serve"}
        if any(name in known for known in self._from._known.values()):
            hint = f"it is for services that run in `carom {others[kind]}`"
            self._wrong(origin, f"{kind} has no option {name!r}", hint)
            return
        near = difflib.get_close_matches(name.replace("-", "_")[:80], sorted(names), 1)
        hint = f"is {near[0]} meant?" if near else f"there are {', '.join(sorted(names))}"
        self._wrong(origin, f"unknown option {name[:80]!r}", hint)

    def _service(
        self,
        number: int,
        kind: Kind,
        found: dict[str, tuple[Any, Origin]],
        apps: list[Service],
    ) -> Planned | None:
        """A service of the values that were found for it; None if one is wrong."""
        known, before = self._from._known[kind], len(self.problems)
        service, app, origins = None, None, dict[str, Origin]()
        standing: dict[str, Any] = {}
        if kind == "serve":
            name, origin = found.pop("app", ("echo", Origin("default", "app")))
            if self._from._app:
                name, origin = self._from._app, Origin("command line", "--app")
            if service := self._loaded(name, origin, apps):
                app, standing = name, self._declared(service, known, origins)
            else:
                standing = {"port": 1}  # so that the rest is checked too
        else:
            standing = dict(fronting.STANDING)
        for name, value in self._from._given.items():
            if name in known:
                found[name] = value, Origin("command line", known[name].flag)
        right, wrong = dict[str, Any](), set[str]()
        for name, (value, origin) in found.items():
            if problems := list(self._checked(known[name], value, origin)):
                self.problems += problems
                wrong.add(name)
            else:
                right[name], origins[name] = _taken(known[name], value), origin
        values = standing | right
        if kind == "front":
            values.setdefault("port", SPECS[values["protocol"]].port or 1)
        origins = {
            name: origins.get(name, Origin("default", written(("service", number, name))))
            for name in known
        }
        own = {name: values[name] for name in Wishes.__struct_fields__ if name in values}
        rest = {name: value for name, value in values.items() if name not in own}
        at = self._at("service", number)
        planned = Planned(kind, app, service, Options(**rest), Wishes(**own), origins, at)
        conflicts = [*planned.options.conflicts(), *_both_said(origins)]
        if kind == "front":
            conflicts += fronting.conflicts(planned.options)
        for conflict in conflicts:
            if not wrong & {*conflict.about}:
                self._conflict(planned, number, conflict)
        return planned if len(self.problems) == before else None

    def _checked(self, field: Field, value: Any, origin: Origin) -> Iterator[Problem]:
        """What is wrong with a value; of several, with each."""
        try:
            _taken(field, value)
            return
        except UsageError as error:
            whole = Problem(origin, error)
        each = list[Problem]()
        for number, item in enumerate(value if isinstance(value, list) else ()):
            try:
                _taken(field, [item])
            except UsageError as error:
                name = f"{origin.name}[{number}]"
                line = self._lines.get(name, origin.line)
                each.append(Problem(Origin(origin.source, name, line), error))
        yield from each or [whole]

    def _loaded(self, name: Any, origin: Origin, apps: list[Service]) -> Service | None:
        """The Python service of this name, if there is one that does not serve already."""
        if not isinstance(name, str):
            self._wrong(origin, "app is a text", "MODULE:SERVICE, or a service of carom.apps")
            return None
        try:
            service, _ = self._from.loaded(name)
        except UsageError as error:
            self.problems.append(Problem(origin, error))
            return None
        if service in apps:
            self._wrong(origin, f"{name} serves twice", "a service has one port")
            return None
        apps.append(service)
        return service

    def _declared(
        self, service: Service, known: Mapping[str, Field], origins: dict[str, Origin]
    ) -> dict[str, Any]:
        """The options that a Python service came with; those that are no defaults are an app's."""
        declared = msgspec.structs.asdict(self._from._declared[service])
        for name, field in fields(Options).items():
            if name in known and declared[name] != field.default:
                origins[name] = Origin("app", "app")
        return declared

    def _conflict(self, planned: Planned, number: int | None, error: UsageError) -> None:
        """Something is wrong with a service, or with all: at what was said, if anything was."""
        if number is None:
            self.problems.append(Problem(self._at(*error.about), error))
            return
        said = (planned.origins.get(name, Origin("default")) for name in error.about)
        where = next((one for one in said if one.source in ("file", "command line")), None)
        self.problems.append(Problem(where or self._at("service", number), error))
