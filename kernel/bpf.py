# SPDX-License-Identifier: Apache-2.0
"""Programs and their maps in the kernel: what C files make, or an object file holds."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import resource
import struct
import threading
from collections.abc import Callable, Collection, Iterable, Mapping

from carom.errors import BPFError, CompileError, PrivilegeError, VerifierError
from carom.kernel import btf, capabilities, elf, forked, kept, libbpf, objects
from carom.kernel.compiled import Compiled, Hook, Program, Refused
from carom.kernel.compiler import BCC, PROVISION, Source
from carom.kernel.machine import IN_ORDER
from carom.kernel.objects import Object
from carom.kernel.recipe import Recipe
from carom.kernel.resource import Resource

FILES = 1024
"""The limit of open files that is asked for: far more than there are programs and maps."""


def _raise_file_limit() -> None:
    """Raise this process' limit of open files, which some shells and supervisors set low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def check_privileges() -> None:
    """Raises PrivilegeError unless this process may load programs.

    Loading needs root, or CAP_BPF with CAP_NET_ADMIN and CAP_PERFMON.
    """
    missing = capabilities.missing("NET_ADMIN")
    if capabilities.missing("SYS_ADMIN"):  # which stands for both
        missing += capabilities.missing("BPF", "PERFMON")
    if missing:
        raise PrivilegeError(
            f"this process may not load BPF programs: it has no {' and no '.join(missing)}",
            hint="run it as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
        )


OLDEST = (5, 18)
"""The first kernel version with everything that is used here."""


def version(release: str) -> tuple[int, ...]:
    """The numbers of `6.1.0-18-amd64` that order kernels: (6, 1)."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


def _too_few_files(error: Exception, details: str) -> bool:
    why = os.strerror(errno.EMFILE)
    return why in details or why in str(error)


_STATISTICS = re.compile(r"processed \d+ insns|verification time|stack depth").match
"""Lines of the verifier's log that follow its reason."""


def told(log: str) -> list[str]:
    """The lines of the verifier's log that tell of the program; the last one is its reason."""
    return [line for line in log.splitlines() if line.strip() and not _STATISTICS(line)]


_KINDS: dict[Hook, int] = {
    "xdp": libbpf.PROG_TYPE_XDP,
    "tc": libbpf.PROG_TYPE_SCHED_CLS,
    "cgroup": libbpf.PROG_TYPE_CGROUP_SKB,
    "bind4": libbpf.PROG_TYPE_CGROUP_SOCK,
    "bind6": libbpf.PROG_TYPE_CGROUP_SOCK,
    "create": libbpf.PROG_TYPE_CGROUP_SOCK,
    "release": libbpf.PROG_TYPE_CGROUP_SOCK,
    "connect4": libbpf.PROG_TYPE_CGROUP_SOCK_ADDR,
    "connect6": libbpf.PROG_TYPE_CGROUP_SOCK_ADDR,
    "sendmsg4": libbpf.PROG_TYPE_CGROUP_SOCK_ADDR,
    "sendmsg6": libbpf.PROG_TYPE_CGROUP_SOCK_ADDR,
    "recvmsg4": libbpf.PROG_TYPE_CGROUP_SOCK_ADDR,
    "recvmsg6": libbpf.PROG_TYPE_CGROUP_SOCK_ADDR,
    "getpeername4": libbpf.PROG_TYPE_CGROUP_SOCK_ADDR,
    "getpeername6": libbpf.PROG_TYPE_CGROUP_SOCK_ADDR,
    "socket": libbpf.PROG_TYPE_SOCKET_FILTER,
    "lookup": libbpf.PROG_TYPE_SK_LOOKUP,
}


def _need_files(name: str, details: str = "") -> BPFError:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return BPFError(
        f"this process may have {limit} files open, too few for the programs and maps of {name}",
        hint=f"ulimit -n {FILES}, or LimitNOFILE={FILES} in its unit",
        details=details,
    )


def _explained(recipe: Recipe, error: Exception, messages: list[str]) -> BPFError:
    """Why the compiler made nothing of it."""
    details = "\n".join(messages)
    if "kernel headers" in details or "kernel/arch" in details:
        return CompileError(
            "BCC found no kernel headers for this kernel", hint=PROVISION, details=details
        )
    first = next((line for line in messages if "error:" in line), str(error))
    if _too_few_files(error, details):
        return _need_files(str(recipe), details)
    if "could not open bpf map" in details:
        return BPFError(
            f"the kernel refused a map of {recipe}: {first.strip()}",
            hint="-v shows all that was said",
            details=details,
        )
    return CompileError(
        f"clang refused {recipe}: {first.strip()}",
        hint="-v shows all that it said",
        details=details,
    )


def build(recipe: Recipe, source: Source | None = None) -> bytes:
    """The object file of a recipe: compiled, for root once per boot (kept.py).

    Raises PrivilegeError, CompileError (clang's output in `details`).
    """
    source = source or recipe.source()
    if source.compiler == BCC:
        check_privileges()  # it makes maps while it compiles
    with kept.alone(source.name):
        if found := kept.take(source.name):
            file, label = found
            if (label.name, label.abi) == (recipe.packaged, objects.abi()):
                return file
        try:
            compiled = source.compile()
        except Refused as error:
            raise _explained(recipe, error, error.said) from error
        file = objects.made(compiled, recipe.packaged, source.digest())
        kept.keep(source.name, file)
        return file


def compiled(recipe: Recipe | Object) -> tuple[Compiled, str]:
    """The programs of a recipe, or of an object, and the digest of the source.

    Those of a recipe are what the user says; or what comes with carom, if it is of just these
    sources; or else compiled. Raises as `build` does, and ObjectError.
    """
    if isinstance(recipe, Object):
        return recipe.loadable(), recipe.label.source
    source = recipe.source()
    digest = source.digest()
    name = recipe.packaged
    found = objects.chosen(name) if name else None
    if name and not found and (packaged := objects.packaged(name, digest)):
        found = packaged.loadable()
    return found or elf.read(build(recipe, source))[0], digest


class Module(Resource):
    """Programs of a recipe and their maps; they live until this is closed.

    Both come into being when they are first needed.
    """

    def __init__(
        self,
        recipe: Recipe | Object,
        *,
        entries: Mapping[str, int] | None = None,
        sizes: Mapping[str, int] | None = None,
        parameters: Mapping[str, int] | None = None,
        beside: Module | None = None,
        apart: Collection[str] = (),
    ):
        """What is compiled is the same for all of these: `entries`, how many some maps have room
        for, and `sizes`, the bytes of their values, whatever the C says; `parameters`
        (parameter.h). What is loaded `beside` another module has its maps, but those `apart`, and
        its parameters where it has none of its own.

        Raises PrivilegeError, CompileError (clang's output in `details`) or ObjectError.
        """
        check_privileges()
        self._entries, self._sizes = dict(entries or {}), dict(sizes or {})
        self._parameters = {"in_order": int(IN_ORDER), **(parameters or {})}
        self._beside, self._apart = beside, frozenset(apart)
        _raise_file_limit()
        self._name = str(recipe)
        self._ring: libbpf.Ring | None = None
        self._programs: dict[str, int] = {}
        self._maps: dict[str, int] = {}
        self._types: int | None = None
        self._loading = threading.Lock()  # of the types: two programs may be loaded at a time
        self._compiled, self.digest = compiled(recipe)

    def _create(self, name: str) -> int:
        """A map as BCC would make it, but for its size. Raises BPFError."""
        shape = self._compiled.maps[name]
        of_maps = shape.kind == libbpf.MAP_TYPE_ARRAY_OF_MAPS
        inner = self.map(btf.inner_name(name)) if of_maps else 0
        try:
            return self.another(name, inner)
        except OSError as error:
            raise self._refused_map(name, error) from error

    def another(self, name: str, inner: int = 0) -> int:
        """One more map like the one of that name; its descriptor, which the caller closes.

        A map of maps holds such, each like the `inner` one to the last detail: before Linux 6.2
        that includes whether types are known. `chunks` holds those like `chunk`. Raises OSError.
        """
        shape = self._compiled.maps[name]
        shape = shape._replace(max_entries=self._entries.get(name, shape.max_entries))
        if name in self._sizes:  # so the C's type is not its value's
            shape = shape._replace(value_size=self._sizes[name], key_type=0, value_type=0)
        types = self._loaded_types() if shape.value_type else None
        return forked.made(lambda: libbpf.create_map(name, shape, types, inner))

    def _loaded_types(self) -> int:
        """The descriptor of the BTF, which is loaded when it is first needed. Raises OSError."""
        with self._loading:
            if self._types is None:
                self._types = forked.made(lambda: libbpf.load_btf(self._compiled.btf))
            return self._types

    def _refused_map(self, name: str, error: OSError) -> BPFError:
        if _too_few_files(error, ""):
            return _need_files(self._name)
        return BPFError(
            f"the kernel refused map {name} of {self._name}: {error.strerror}",
            hint="a smaller --capacity, or a map with fewer entries, needs less memory",
        )

    def _refused(self, name: str, error: OSError, details: str) -> BPFError:
        if _too_few_files(error, details):
            return _need_files(self._name, details)
        release = os.uname().release
        if version(release) < OLDEST:
            hint = f"this kernel is {release}, and {OLDEST[0]}.{OLDEST[1]} or newer is needed"
        else:
            hint = f"-v shows all that was said; kernel {release}"
        if error.errno == errno.E2BIG:
            reason = "it takes the verifier more than the 1,000,000 instructions it looks at"
        else:
            reason = (told(details) or [""])[-1]
        if not reason:  # it did not get to the verifier, or not through it
            return BPFError(
                f"the kernel refused program {name} of {self._name}: {error.strerror}", hint=hint
            )
        return VerifierError(
            f"the kernel's verifier refused {name} of {self._name}: {reason}",
            hint=hint,
            details=details,
        )

    def program(self, name: str) -> int:
        """Load a program, if it is not loaded yet, and return its descriptor.

        Raises BPFError, VerifierError.
        """
        if name not in self._programs:
            self._programs[name] = forked.keep(self._load(name))
        return self._programs[name]

    def load(self, names: Iterable[str]) -> None:
        """Load programs, two at a time: the verifier takes most of a start, on one CPU each.

        Raises BPFError, VerifierError.
        """
        wanted = sorted({*names} - self._programs.keys(), key=self._length)
        if not wanted:
            return
        for name in wanted:
            for one in self._found(name).maps.values():
                self.map(one)
        errors: list[BPFError] = []

        def work() -> None:
            try:
                while not errors:
                    self.program(wanted.pop())
            except IndexError:
                pass  # all are taken
            except BPFError as error:
                errors.append(error)

        beside = threading.Thread(target=work)
        beside.start()
        try:
            work()
        finally:
            beside.join()
        if errors:
            raise errors[0]

    def _length(self, name: str) -> int:
        return len(self._found(name).code)

    def go_on(self, maps: Mapping[str, int], parameters: Mapping[str, int]) -> None:
        """Have maps, by descriptors that are this module's from now on, and parameters of another
        one that had the same layout; before anything of this one is made."""
        self._maps.update(maps)
        self._parameters.update(parameters)

    def maps(self) -> dict[str, int]:
        """The descriptors of the maps that it has so far, by name; not of those it is beside."""
        return dict(self._maps)

    def layout(self, leaving: Collection[str] = ()) -> str:
        """A digest of how keys and values lie in its maps, but for those that are left out."""
        layouts, digest = btf.Layouts(self._compiled.btf), hashlib.sha256()
        for name, shape in sorted(self._compiled.maps.items()):
            if name not in leaving:
                kinds = (layouts.of(number) for number in (shape.key_type, shape.value_type))
                digest.update(repr((name, *shape[:5], *kinds)).encode())
        return digest.hexdigest()

    def shape(self, name: str) -> libbpf.MapShape | None:
        """What a map is like by its source; None for no map."""
        return self._compiled.maps.get(name)

    def programs(self) -> frozenset[str]:
        """The names of what can be loaded."""
        return frozenset(self._compiled.programs)

    def _found(self, name: str) -> Program:
        program = self._compiled.programs.get(name)
        if program is None:
            raise BPFError(f"{self._name} has no program {name}")
        return program

    def _load(self, name: str) -> int:
        program = self._found(name)
        maps = {one: self.map(one) for one in program.maps.values()}
        loadable = libbpf.Loadable(
            _KINDS[program.hook],
            name,
            program.linked(maps, self._said(name, program.parameters.values())),
            self._compiled.license,
            libbpf.EXPECTED.get(program.hook, 0),
        )
        try:
            if origin := program.origin:
                types, lines = self._loaded_types(), origin.lines
                loadable = loadable._replace(btf=types, function=origin.function, lines=lines)
            return libbpf.load_program(loadable)
        except OSError as error:
            raise self._refused(name, error, libbpf.why_not(loadable)) from error

    def chain(self, name: str, programs: Mapping[int, int]) -> None:
        """Put programs into a map of programs, by index, for other programs to continue with."""
        for index, program in programs.items():
            libbpf.update(self.map(name), struct.pack("=I", index), struct.pack("=I", program))

    def map(self, name: str) -> int:
        """The descriptor of a map, which is made when it is first needed.

        Raises BPFError where there is none of that name, or the kernel refuses it.
        """
        if self._beside and name in self._beside._compiled.maps and name not in self._apart:
            return self._beside.map(name)
        if name not in self._maps:
            if name not in self._compiled.maps:
                raise BPFError(f"{self._name} has no map {name}")
            self._maps[name] = self._create(name)
        return self._maps[name]

    def _said(self, program: str, wanted: Iterable[str]) -> Mapping[str, int]:
        """The parameters. Raises BPFError if a wanted one is missing."""
        parameters = {**(self._beside._parameters if self._beside else {}), **self._parameters}
        if missing := set(wanted) - parameters.keys():
            raise BPFError(f"{program} of {self._name} is loaded without {', '.join(missing)}")
        return parameters

    def cells(self, name: str, count: int) -> memoryview:
        """The `count` u64 cells of a mmapable array: access takes no system call."""
        return forked.shared(self.map(name), count * 8).cast("Q")

    def ring(self, name: str, take: Callable[[bytes], bool | None]) -> None:
        """Have `drain` and `wait` pass records of a ring buffer to `take` until that is False."""
        self._ring = libbpf.Ring(self.map(name), take)

    def drain(self) -> None:
        """Take all records that the ring buffer holds now."""
        if self._ring:
            self._ring.drain()

    def wait(self, seconds: float) -> None:
        """As `drain`; if the ring buffer is empty, first wait up to `seconds` for a record."""
        if self._ring:
            self._ring.wait(round(seconds * 1000))

    def unload(self, leaving: Iterable[str], maps: Iterable[str]) -> None:
        """Free its programs but these, and some of its maps: others are used instead."""
        for name in self._programs.keys() - {*leaving}:
            forked.close(self._programs.pop(name))
        for name in maps:
            if name in self._maps:
                forked.close(self._maps.pop(name))

    def say(self, **parameters: int) -> None:
        """What is loaded from now on has these parameters."""
        self._parameters |= parameters

    def close(self) -> None:
        """Free programs and maps."""
        if self._ring:
            self._ring.close()
            self._ring = None
        for descriptors in (self._programs, self._maps):
            while descriptors:
                forked.close(descriptors.popitem()[1])
        if self._types is not None:
            forked.close(self._types)
            self._types = None
