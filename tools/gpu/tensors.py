"""Reads safetensors files with Python's standard library alone."""
import array
import json
import pathlib
import struct
import sys


class TensorFile:
    def __init__(self, path):
        self.data = pathlib.Path(path).read_bytes()
        (length,) = struct.unpack_from("<Q", self.data)
        self.header = json.loads(self.data[8:8 + length])
        self.metadata = self.header.pop("__metadata__", {})
        self.first = 8 + length

    def names(self):
        return sorted(self.header)

    def shape(self, name):
        return self.header[name]["shape"]

    def raw(self, name):
        begin, end = self.header[name]["data_offsets"]
        return self.data[self.first + begin:self.first + end]

    def floats(self, name):
        """The numbers of an F32 tensor, flat."""
        if self.header[name]["dtype"] != "F32":
            raise ValueError(f"{name} is {self.header[name]['dtype']}, expected F32")
        values = array.array("f", self.raw(name))
        if sys.byteorder != "little":
            values.byteswap()
        return values


def differing(a, b):
    """Names of tensors whose bits differ, or that only one of the two files has."""
    a, b = TensorFile(a), TensorFile(b)
    return [name for name in sorted(set(a.names()) | set(b.names()))
            if name not in a.header or name not in b.header or a.raw(name) != b.raw(name)]
