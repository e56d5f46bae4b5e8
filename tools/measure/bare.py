"""Writes the bare machine's memory as an ELF for QEMU's -kernel: kernel, ramdisk and tree where the VM has them.

QEMU's own way of starting a kernel would place it elsewhere and pad the tree, which Linux reads and checksums: a
difference of 0.01 % that is nobody's cost.
"""

import struct
from pathlib import Path

from measure.counts import Start

PT_LOAD, RWX, EM_AARCH64, ET_EXEC = 1, 7, 183, 2
HEADER_BYTES, PROGRAM_HEADER_BYTES = 64, 56
STUB_BYTES = 4096
# LDR X0, tree; LDR X16, kernel; BR X16; NOP; then the two addresses.
STUB = (0x5800_0080, 0x5800_00B0, 0xD61F_0200, 0xD503_201F)


def elf(start: Start, kernel: str, initrd: str) -> bytes:
    """Returns an ELF that starts the kernel as the VM was started."""
    chosen = properties(start.tree)
    segments = [(start.pc, Path(kernel).read_bytes()), (start.x0, start.tree)]
    if initrd:
        segments.append((int.from_bytes(chosen["linux,initrd-start"]), Path(initrd).read_bytes()))
    base, size = struct.unpack(">QQ", chosen["reg of memory"])
    stub = base + size - STUB_BYTES
    segments.append((stub, struct.pack("<4IQQ", *STUB, start.x0, start.pc)))
    return executable(stub, segments)


def executable(entry: int, segments: list[tuple[int, bytes]]) -> bytes:
    """Returns an arm64 ELF with these segments at their physical addresses."""
    offset = HEADER_BYTES + PROGRAM_HEADER_BYTES * len(segments)
    headers, body = b"", b""
    for address, content in segments:
        headers += struct.pack("<IIQQQQQQ", PT_LOAD, RWX, offset + len(body), address, address, len(content),
                               len(content), 1)
        body += content
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", ET_EXEC, EM_AARCH64, 1, entry, HEADER_BYTES, 0, 0,
                       HEADER_BYTES, PROGRAM_HEADER_BYTES, len(segments), 64, 0, 0)
    return head + headers + body


def properties(tree: bytes) -> dict[str, bytes]:
    """Returns the properties of /chosen, and `reg` of the memory node (Devicetree Specification v0.4, 5.4)."""
    structure, strings = struct.unpack_from(">II", tree, 8)
    found, path, at = {}, [], structure
    while True:
        token, = struct.unpack_from(">I", tree, at)
        at += 4
        if token == 1:  # FDT_BEGIN_NODE
            end = tree.index(b"\0", at)
            path.append(tree[at:end].decode())
            at = end + 4 & ~3
        elif token == 2:  # FDT_END_NODE
            path.pop()
        elif token == 3:  # FDT_PROP
            length, name = struct.unpack_from(">II", tree, at)
            key = tree[strings + name:tree.index(b"\0", strings + name)].decode()
            value = tree[at + 8:at + 8 + length]
            at += 8 + length + 3 & ~3
            if path == ["", "chosen"]:
                found[key] = value
            elif len(path) == 2 and path[1].startswith("memory@") and key == "reg":
                found["reg of memory"] = value
        elif token == 9:  # FDT_END
            return found
