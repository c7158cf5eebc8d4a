"""Fetching what a compiled loop will need soon, while it works on something else.

In searches of an index of a million tokens, `mark_features` takes 1.5 times and
`add_to_sentences` 1.3 times as long without it (docs/research-log.md, "Postings fetched ahead").
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# Bytes that come from the memory together, on nearly all machines.
_LINE = 64

_READ, _KEEP, _DATA = 0, 3, 1


@intrinsic
def _prefetch(_typing: Any, array: Any, index: Any) -> Any:
    """Fetch the cache line of an element of an array, without waiting for it.

    It is a hint: it changes nothing, and an index outside the array does no harm.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        element = builder.gep(data, [arguments[1]])
        address = builder.bitcast(element, ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(function, [address, number(_READ), number(_KEEP), number(_DATA)])
        return context.get_dummy_value()

    return types.void(array, index), generate


@njit(nogil=True, cache=True)
def prefetch(array: Any, begin: int, end: int) -> None:
    """Fetch the elements of an array from `begin` to before `end`, without waiting for them."""
    for i in range(begin, end, _LINE // array.itemsize):
        _prefetch(array, i)  # type: ignore[call-arg]
