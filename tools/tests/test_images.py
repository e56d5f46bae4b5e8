"""Facts about tools/flatten and tools/initramfs."""

import struct
import unittest

from .loading import tool

flatten, initramfs = tool("flatten").flatten, tool("initramfs")


def elf(*segments: tuple[int, bytes, int]) -> bytes:
    """Returns an ELF with PT_LOAD segments of (address, content, size in memory)."""
    headers, body = b"", b""
    start = 64 + 56 * len(segments)
    for address, content, size in segments:
        headers += struct.pack("<IIQQQQQQ", 1, 0, start + len(body), address, address, len(content), size, 1)
        body += content
    return (b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 64, 0, 0, 64, 56,
                                                          len(segments), 0, 0, 0) + headers + body)


class Flatten(unittest.TestCase):
    """ELF to flat binary."""

    def test_gaps_are_zero_and_bss_is_left_out(self):
        self.assertEqual(flatten(elf((0x100, b"ab", 2), (0x104, b"cd", 4), (0x200, b"", 64))), b"ab\0\0cd")

    def test_what_is_no_elf_is_refused(self):
        for content in (b"", b"\x7fELF\x01\x01", b"ARM\x64" * 40):
            with self.assertRaises(SystemExit):
                flatten(content)


class Initramfs(unittest.TestCase):
    """The cpio archive of the Debian guest."""

    def members(self) -> dict[str, tuple[int, bytes]]:
        archive, found, at = initramfs.archive(b"busybox"), {}, 0
        while True:
            self.assertEqual(archive[at:at + 6], b"070701")
            fields = [int(archive[at + 6 + 8 * n:at + 14 + 8 * n], 16) for n in range(13)]
            name = archive[at + 110:at + 109 + fields[11]].decode()
            start = at + (110 + fields[11] + 3) // 4 * 4
            if name == "TRAILER!!!":
                return found
            found[name] = (fields[1], archive[start:start + fields[6]])
            at = start + (fields[6] + 3) // 4 * 4

    def test_it_holds_init_busybox_and_the_console(self):
        members = self.members()
        self.assertEqual(members["bin/busybox"], (0o100755, b"busybox"))
        self.assertEqual(members["dev/console"][0], 0o020600)
        self.assertTrue(members["init"][1].startswith(b"#!/bin/busybox sh\n"))

    def test_a_directory_comes_before_what_is_in_it(self):
        names = list(self.members())
        for index, name in enumerate(names):
            if "/" in name:
                self.assertIn(name.rpartition("/")[0], names[:index])


if __name__ == "__main__":
    unittest.main()
