"""Named tuples by reference inside compiled code (floor E).

A tuple of sixty arrays is several hundred values in every call that hands it on, and numba compiles them all, function by
function.  The tuple lies in memory once (engine/native.py); a single pointer travels.  A member is loaded where it is
read, and a member that is a tuple itself is again a pointer.  No run changes a tuple (only what its arrays hold), so the
loads are marked invariant and LLVM keeps them out of loops.  Members that are None count as the number 1, known when the
code is compiled.  Arrays behind a reference take no negative indices.
"""

from __future__ import annotations

import operator
from typing import Any

import numba.core.types
from llvmlite import ir
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.typing.templates import AttributeTemplate, signature
from numba.extending import infer_getattr, lower_builtin, lower_getattr_generic, register_model
from numba.np import arrayobj

types: Any = numba.core.types


class Ref(types.Type):
    """Pointer to a named tuple that does not change."""

    def __init__(self, row: Any) -> None:
        self.row = row
        super().__init__(name=f"ref({row})")


register_model(Ref)(models.OpaqueModel)


@infer_getattr
class _Members(AttributeTemplate):
    key = Ref

    def generic_resolve(self, ref: Ref, name: str) -> Any:  # type: ignore[override]
        if name not in ref.row.fields:
            return None
        member = ref.row.types[ref.row.fields.index(name)]
        if isinstance(member, types.BaseNamedTuple):
            return Ref(member)
        if isinstance(member, types.Array):
            return UncheckedArray(member.dtype, member.ndim, member.layout)
        return types.int64 if isinstance(member, types.NoneType) else member


@lower_getattr_generic(Ref)
def _get(context: Any, builder: Any, ref: Ref, pointer: Any, name: str) -> Any:
    index = ref.row.fields.index(name)
    row = builder.bitcast(pointer, context.get_value_type(ref.row).as_pointer())
    place = cgutils.gep_inbounds(builder, row, 0, index)
    if isinstance(ref.row.types[index], types.NoneType):
        return context.get_constant(types.int64, 1)
    if isinstance(ref.row.types[index], types.BaseNamedTuple):
        return builder.bitcast(place, cgutils.voidptr_t)
    return _load(builder, place)


def _load(builder: Any, place: Any) -> Any:
    """Number by number: LLVM would forget the mark when it splits the load of a whole array."""
    kind = place.type.pointee
    if not isinstance(kind, ir.Aggregate):
        load = builder.load(place)
        load.set_metadata("invariant.load", builder.module.add_metadata([]))
        return load
    value = ir.Constant(kind, ir.Undefined)
    for x in range(len(kind)):
        value = builder.insert_value(value, _load(builder, cgutils.gep_inbounds(builder, place, 0, x)), x)
    return value


# ---- arrays without negative indices --------------------------------------------------------------------------------


class UncheckedArray(types.Array):
    """An array whose indices are never negative: numba would test each of them and count it from the end."""

    def __init__(self, dtype: Any, ndim: int, layout: str) -> None:
        super().__init__(dtype, ndim, layout, name=f"cells({dtype}, {ndim}d, {layout})")

    def copy(self, dtype: Any = None, ndim: Any = None, layout: Any = None, readonly: Any = None) -> UncheckedArray:
        """Of a view."""
        return UncheckedArray(dtype or self.dtype, self.ndim if ndim is None else ndim, layout or self.layout)


register_model(UncheckedArray)(models.ArrayModel)


def _unsigned(index: Any) -> Any:
    if isinstance(index, types.BaseTuple):
        return types.BaseTuple.from_types([_unsigned(one) for one in index.types])
    return types.uintp if isinstance(index, types.Integer) else index


def _lower(action: Any, index: Any, as_arrays: Any, *more: Any) -> None:
    """Indexing is numba's own, told that the indices are unsigned."""

    @lower_builtin(action, UncheckedArray, index, *more)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at, *rest = sig.args
        return as_arrays(context, builder, signature(sig.return_type, array, _unsigned(at), *rest), args)


_lower(operator.getitem, types.Integer, arrayobj.getitem_arraynd_intp)
_lower(operator.getitem, types.BaseTuple, arrayobj.getitem_array_tuple)
_lower(operator.setitem, types.Integer, arrayobj.setitem_array, types.Any)
_lower(operator.setitem, types.BaseTuple, arrayobj.setitem_array, types.Any)
