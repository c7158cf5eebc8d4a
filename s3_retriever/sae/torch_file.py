"""Tensors in the files of `torch.save`, read without running the pickle inside.

Such a file is a ZIP archive: `data.pkl` describes tensors, and each file in `data/` is the memory
of one. A pickle is a program, and running one from someone else may do anything (torch's own safe
mode was broken before torch 2.6). The few instructions that describe a dictionary of tensors are
followed here step by step, and build nothing but shapes.
"""

from __future__ import annotations

import pickletools
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from s3_retriever.errors import CodebookError, brief
from s3_retriever.paths import regular_size

_DTYPES = {
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch DoubleStorage": torch.float64,
}
_REBUILD = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_ORDERED = "collections OrderedDict"
# The description of a few tensors is short.
_LONGEST_PICKLE = 1 << 20
_MOST_DIMENSIONS = 4


class _Global(NamedTuple):
    """The name of a class or function that a pickle would import."""

    name: str


class _Storage(NamedTuple):
    dtype: torch.dtype
    key: str


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a tensor is."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Unknown(Exception):  # noqa: N818 - turned into an error where the file is known
    """A pickle holds something else than a dictionary of tensors."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a dictionary of tensors that `torch.save` wrote.

    Returns:
        The tensors by name, on the CPU, in their own dtype; what else it holds is left out.

    Raises:
        CodebookError: The file cannot be read, or holds something else.
    """
    try:
        regular_size(path)
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1 or archive.getinfo(names[0]).file_size > _LONGEST_PICKLE:
                raise _Unknown("it is not a file of torch.save")
            root = names[0].removesuffix("data.pkl")
            _check_byte_order(archive, root)
            layouts = _Reader().read(archive.read(names[0]))
            return {name: _tensor(archive, root, layout) for name, layout in layouts.items()}
    except (OSError, ValueError, KeyError, IndexError, TypeError, MemoryError, RuntimeError,
            EOFError, zipfile.BadZipFile, zlib.error, _Unknown) as error:  # fmt: skip
        raise CodebookError(
            f"{path} cannot be read as a dictionary of tensors ({brief(error)}); fetch it again, "
            "or convert it to safetensors."
        ) from error


def _check_byte_order(archive: zipfile.ZipFile, root: str) -> None:
    name = f"{root}byteorder"
    if name not in archive.namelist():
        return
    info = archive.getinfo(name)
    if info.file_size != len(b"little") or archive.read(info) != b"little":
        raise _Unknown("its numbers are big-endian")


def _tensor(archive: zipfile.ZipFile, root: str, layout: _Layout) -> Tensor:
    info = archive.getinfo(f"{root}data/{layout.storage.key}")
    if info.compress_type != zipfile.ZIP_STORED:
        raise _Unknown("its tensors are compressed")
    memory = torch.frombuffer(bytearray(archive.read(info)), dtype=layout.storage.dtype)
    # as_strided itself checks the bounds.
    return memory.as_strided(layout.shape, layout.stride, layout.offset).contiguous()


class _Reader:
    """Follows a pickle's instructions on a stack of plain values, and calls nothing."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self, pickled: bytes) -> dict[str, _Layout]:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in _VALUES:
                self._stack.append(argument)
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            elif opcode.name not in _NOTHING:
                raise _Unknown(f"it has the instruction {opcode.name}")
        found = self._stack[-1]
        if not isinstance(found, dict):
            raise _Unknown("it holds no dictionary")
        return {
            name: layout
            for name, layout in found.items()
            if isinstance(name, str) and isinstance(layout, _Layout)
        }

    def mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def since_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def empty_list(self, _: Any) -> None:
        self._stack.append([])

    def tuple_of(self, count: int) -> None:
        values = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._stack.append(values)

    def tuple_since_mark(self, _: Any) -> None:
        self._stack.append(tuple(self.since_mark()))

    def put(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, place: int) -> None:
        self._stack.append(self._memo[place])

    def name_global(self, name: str) -> None:
        self._stack.append(_Global(name))

    def stack_global(self, _: Any) -> None:
        module, name = self._stack[-2:]
        del self._stack[-2:]
        self._stack.append(_Global(f"{_text(module)} {_text(name)}"))

    def set_item(self, _: Any) -> None:
        items = self._stack[-2:]
        del self._stack[-2:]
        self._set(items)

    def set_items(self, _: Any) -> None:
        self._set(self.since_mark())

    def _set(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], dict):
            raise _Unknown("it sets items of something else than a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # The hash of nested tuples may take forever.
            if isinstance(key, tuple):
                raise _Unknown("it has a key that is neither text nor a number")
            self._stack[-1][key] = value

    def build(self, _: Any) -> None:
        # The attributes of an ordered dictionary: versions of modules.
        self._stack.pop()

    def storage(self, _: Any) -> None:
        kind, found, key, _where, _count = self._stack.pop()
        dtype = _DTYPES.get(found.name) if isinstance(found, _Global) else None
        if kind != "storage" or dtype is None:
            raise _Unknown("it holds tensors that are not floating-point numbers")
        self._stack.append(_Storage(dtype, _text(key)))

    def reduce(self, _: Any) -> None:
        function, arguments = self._stack[-2:]
        del self._stack[-2:]
        name = function.name if isinstance(function, _Global) else ""
        if name == _ORDERED and not arguments:
            self._stack.append({})
        elif name == _REBUILD:
            storage, offset, shape, stride = arguments[:4]
            self._stack.append(_layout(storage, offset, shape, stride))
        elif name == _PARAMETER:
            self._stack.append(arguments[0])
        else:
            raise _Unknown(f"it would call {name or 'something'}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Unknown("it has something else where a name belongs")
    return value


def _layout(storage: Any, offset: Any, shape: Any, stride: Any) -> _Layout:
    sizes = [offset, *shape, *stride]
    whole = all(type(size) is int and size >= 0 for size in sizes)
    if not isinstance(storage, _Storage) or not whole or len(shape) > _MOST_DIMENSIONS:
        raise _Unknown("it describes a tensor that cannot be")
    return _Layout(storage, offset, tuple(shape), tuple(stride))


_CONSTANTS: dict[str, Any] = {"NEWTRUE": True, "NEWFALSE": False, "NONE": None, "EMPTY_TUPLE": ()}
_VALUES = frozenset(
    {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1"}
    | {"BINFLOAT"}
)
_NOTHING = frozenset({"PROTO", "FRAME", "STOP"})
_STEPS: dict[str, Callable[[_Reader, Any], None]] = {
    "MARK": _Reader.mark,
    "EMPTY_DICT": _Reader.empty_dict,
    "EMPTY_LIST": _Reader.empty_list,
    "TUPLE": _Reader.tuple_since_mark,
    "TUPLE1": lambda reader, _: reader.tuple_of(1),
    "TUPLE2": lambda reader, _: reader.tuple_of(2),
    "TUPLE3": lambda reader, _: reader.tuple_of(3),
    "BINPUT": _Reader.put,
    "LONG_BINPUT": _Reader.put,
    "MEMOIZE": _Reader.memoize,
    "BINGET": _Reader.get,
    "LONG_BINGET": _Reader.get,
    "GLOBAL": _Reader.name_global,
    "STACK_GLOBAL": _Reader.stack_global,
    "SETITEM": _Reader.set_item,
    "SETITEMS": _Reader.set_items,
    "BUILD": _Reader.build,
    "BINPERSID": _Reader.storage,
    "REDUCE": _Reader.reduce,
}
