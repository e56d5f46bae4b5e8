"""Where EL2's instructions go: the plugin's addresses as functions, and as source lines where gdb knows them.

Needs the ELF that the image was made of, run at the address it was linked for (QEMU does).
"""

import re
import struct
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

SHT_SYMTAB, STT_FUNC, SYMBOL_BYTES = 2, 2, 24
MANGLED = re.compile(r"^_ZN(.+)E$")
# How the legacy mangling writes what is not a letter.
ESCAPES = (("_$", "$"), ("$LT$", "<"), ("$GT$", ">"), ("$u20$", " "), ("$u7b$", "{"), ("$u7d$", "}"), ("$RF$", "&"),
           ("$BP$", "*"), ("$C$", ","), ("..", "::"))


def functions(elf: bytes) -> list[tuple[int, str]]:
    """Returns the addresses and names of all functions and labels, sorted."""
    offset, = struct.unpack_from("<Q", elf, 40)
    size, count = struct.unpack_from("<HH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, offset + n * size) for n in range(count)]
    found = []
    for _, kind, _, _, start, length, link, *_ in headers:
        if kind != SHT_SYMTAB:
            continue
        strings = headers[link][4]
        for entry in range(start, start + length, SYMBOL_BYTES):
            name, info, _, section, address, _ = struct.unpack_from("<IBBHQQ", elf, entry)
            text = elf[strings + name:elf.index(b"\0", strings + name)].decode()
            if section and text and not text.startswith("$") and info & 15 <= STT_FUNC:
                found.append((address, demangled(text)))
    return sorted(found)


def demangled(name: str) -> str:
    """Returns a Rust path of the legacy mangling without its hash; other names as they are."""
    match, parts = MANGLED.match(name), []
    rest = match[1] if match else ""
    while rest and (length := re.match(r"\d+", rest)):
        end = length.end() + int(length[0])
        parts.append(plain(rest[length.end():end]))
        rest = rest[end:]
    return "::".join(parts[:-1] if re.fullmatch(r"h[0-9a-f]{16}", parts[-1]) else parts) if parts else name


def plain(part: str) -> str:
    """Returns one part of a mangled path as it is written in the source."""
    for escape, meant in ESCAPES:
        part = part.replace(escape, meant)
    return part


def by_function(places: Counter, elf: Path) -> Counter:
    """Adds the instructions up by function."""
    table, total, index = functions(elf.read_bytes()), Counter(), 0
    for pc in sorted(places):
        while index + 1 < len(table) and table[index + 1][0] <= pc:
            index += 1
        total[table[index][1]] += places[pc]
    return total


def by_line(places: Counter, elf: Path) -> Counter:
    """Adds the instructions up by source line, that of the innermost inlined function."""
    order = sorted(places)
    with tempfile.NamedTemporaryFile("w", suffix=".gdb") as script:
        script.writelines(f"info line *{pc:#x}\n" for pc in order)
        script.flush()
        said = subprocess.run(["gdb-multiarch", "-q", "-batch", "-x", script.name, str(elf)], text=True,
                              capture_output=True, check=True, errors="replace").stdout
    lines = [line for line in said.splitlines() if line.startswith(("Line ", "No line "))]
    total, of_rust = Counter(), re.compile(r"^/rustc/\w+/library/")
    for pc, line in zip(order, lines, strict=True):
        match = re.match(r'Line (\d+) of "([^"]+)"', line)
        total[f"{of_rust.sub('', match[2])}:{match[1]}" if match else "assembly"] += places[pc]
    return total
