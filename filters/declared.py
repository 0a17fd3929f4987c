# SPDX-License-Identifier: Apache-2.0
"""Maps of a user's own filter that are shown: which they are, and what their members are.

A map is a counter, a gauge or to be printed as its name begins with `counter_`, `gauge_` or
`print_`. A name is in the C and in the object file, whatever compiler made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

from carom.errors import BPFError
from carom.kernel.compiled import Compiled
from carom.kernel.libbpf import MapShape
from carom.kernel.values import Leaf, Types, number

Kind = Literal["counter", "gauge", "print"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_HASH, _ARRAY, _PERCPU_HASH, _PERCPU_ARRAY, _LRU, _LRU_PERCPU = 1, 2, 5, 6, 9, 10
RING = 27
_NAMES = {
    _HASH: "hash",
    _ARRAY: "array",
    _PERCPU_HASH: "percpu_hash",
    _PERCPU_ARRAY: "percpu_array",
    _LRU: "lru_hash",
    _LRU_PERCPU: "lru_percpu_hash",
    RING: "ringbuf",
}
"""The types of maps that can be shown (enum bpf_map_type), as BPF_TABLE has them."""

NAME_MAX = 64
MAPS_MAX = 32
_KEY_MAX, _VALUE_MAX = 512, 4096
"""Bytes of a key and of a value that can be shown."""

_TAKEN = {"requests": "carom_filter_requests", "left_out": "carom_filter_left_out"}
"""Names that metrics of carom's own have."""


class Declared(NamedTuple):
    """A map that is shown: `keys` and `values` are its members."""

    name: str
    kind: Kind
    shape: MapShape
    keys: list[Leaf]
    values: list[Leaf]

    @property
    def plain(self) -> str:
        """Its name without its kind: a metric's name."""
        return self.name.removeprefix(f"{self.kind}_")

    @property
    def type(self) -> str:
        """The map's type, as BPF_TABLE has it."""
        return _NAMES[self.shape.kind]

    @property
    def columns(self) -> tuple[list[str], list[str]]:
        """The names of its members: of the key, and of the value."""
        bare = "index" if self.is_array else "key"
        keys = [leaf.name or bare for leaf in self.keys]
        if self.per_cpu and self.kind == "print":
            keys.append("cpu")
        return keys, [leaf.name or "value" for leaf in self.values]

    @property
    def is_array(self) -> bool:
        """Whether its keys are all numbers from 0 to its capacity."""
        return self.shape.kind in (_ARRAY, _PERCPU_ARRAY)

    @property
    def per_cpu(self) -> bool:
        """Whether each CPU has values of its own."""
        return self.shape.kind in (_PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU)

    def words(self) -> dict[str, Any]:
        """What it is, for `carom filter show`."""
        keys, values = self.columns
        return {
            "name": self.name,
            "kind": self.kind,
            "type": self.type,
            "capacity": self.shape.max_entries,
            "keys": keys,
            "values": values,
        }


def declared(compiled: Compiled, shared: frozenset[str]) -> list[Declared]:
    """The maps of an own filter that are shown, by name; those that are `shared` are carom's.

    Raises BPFError that names a map that cannot be shown, and what elf.BROKEN lists.
    """
    own = sorted(compiled.maps.keys() - shared)
    if len(own) > MAPS_MAX:
        raise BPFError(f"it has {len(own)} maps", hint=f"a filter may have {MAPS_MAX} of its own")
    types = Types(compiled.btf)
    found = []
    for name in own:
        if not (name.isascii() and name.isidentifier() and len(name) <= NAME_MAX):
            raise BPFError(
                f"its map {name[:NAME_MAX]!r} has a name that cannot be shown",
                hint=f"up to {NAME_MAX} of a-z, A-Z, 0-9 and _",
            )
        kind = next((kind for kind in KINDS if name.startswith(f"{kind}_")), None)
        if kind:
            found.append(_declared(name, kind, compiled.maps[name], types))
    _check_metrics(found)
    return found


def _declared(name: str, kind: Kind, shape: MapShape, types: Types) -> Declared:
    if shape.kind not in _NAMES or (shape.kind == RING and kind != "print"):
        can = [one for one in _NAMES.values() if kind == "print" or one != "ringbuf"]
        raise BPFError(
            f"{name} cannot be shown: a map of kind {kind} is a {', '.join(can)}",
            hint="declare it so, or give it a name that does not begin with its kind",
        )
    key_type, value_type = shape.key_type, shape.value_type
    if not value_type:
        key_type, value_type = types.annotated(name)
    if shape.kind == RING:
        record = types.leaves(value_type, types.size(value_type)) if value_type else []
        return Declared(name, kind, shape, [], record)
    if shape.key_size > _KEY_MAX or shape.value_size > _VALUE_MAX:
        raise BPFError(
            f"{name} has keys of {shape.key_size} and values of {shape.value_size} bytes",
            hint=f"what is shown has {_KEY_MAX} and {_VALUE_MAX} at most",
        )
    bare = number(shape.value_size)
    values = types.leaves(value_type, shape.value_size) if value_type or not bare else [bare]
    one = Declared(name, kind, shape, types.leaves(key_type, shape.key_size), values)
    if (
        one.is_array
    ):  # its key is an index, whatever its type says, and one of a single value is none
        index = number(shape.key_size)
        one = one._replace(keys=[index] if index and shape.max_entries > 1 else [])
    _check_members(one)
    return one


def _check_members(one: Declared) -> None:
    """Raises BPFError for members of one name, and for what cannot be counted."""
    for names in one.columns:
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise BPFError(
                f"{one.name} has several members that are shown as {', '.join(sorted(twice))}",
                hint="give one of them another name",
            )
    for leaf in one.values:
        if one.kind != "print" and (
            leaf.kind == "word" or (one.kind, leaf.kind) == ("counter", "signed")
        ):
            able = "unsigned integers" if one.kind == "counter" else "integers"
            raise BPFError(
                f"{one.name} cannot be a {one.kind}: {leaf.name or 'its value'} is none",
                hint=f"its values are {able}; what tells them apart is in the key; "
                "print_NAME shows any type",
            )


def metrics(one: Declared) -> list[str]:
    """The names of a map's metrics, without `_total`: one for each member of its value."""
    if one.kind == "print":
        return []
    return ["_".join(filter(None, (one.plain, leaf.name))) for leaf in one.values]


_SUFFIXES = ("_total", "_created", "_bucket", "_count", "_sum", "_info")
"""What a metric's samples may be called behind its name."""


def _check_metrics(maps: Sequence[Declared]) -> None:
    """Raises BPFError where two metrics, or their samples, would have one name."""
    taken = dict(_TAKEN)
    for one in maps:
        for name in metrics(one):
            bare = next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)), "")
            sample = any(f"{name}{end}" in taken for end in _SUFFIXES)
            if name in taken or bare in taken or sample or name.endswith("_total"):
                raise BPFError(
                    f"the metric carom_filter_{name} of {one.name} cannot have that name: "
                    + (
                        "_total is what carom adds to a counter's"
                        if name.endswith("_total")
                        else f"{taken.get(name) or taken.get(bare) or 'another'} has it"
                    ),
                    hint="give the map another name",
                )
            taken[name] = one.name
