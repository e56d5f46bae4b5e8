"""Facts about tools/gdb/decode.py: numbers as the manual gives them, and the words for them."""

import random
import struct
import unittest

from .loading import tool

decode = tool("gdb/decode.py")
VTCR = 0x8002_3558  # 40-bit IPA, 4 KiB granule, first look-up at level 1 in two concatenated tables


class Syndromes(unittest.TestCase):
    """ESR_EL2, HPFAR_EL2 and SPSR_EL2 in words."""

    def test_each_class_is_decoded(self):
        for esr, words in {
            0x9383_0005: "data abort from a lower EL, translation fault, level 1, read, 32-bit, W register X3",
            0x9200_0047: "data abort from a lower EL, translation fault, level 3, write, no instruction syndrome (ISV 0)",
            0x8200_000F: "instruction abort from a lower EL, permission fault, level 3",
            0x6230_00E9: "trapped MSR, MRS or SYS, X7 <- ID_AA64PFR0_EL1",
            0x623A_3016: "trapped MSR, MRS or SYS, ICC_SGI1R_EL1 <- X0",
            0x5A00_0005: "HVC, immediate 0x5",
            0x5E00_0000: "SMC, immediate 0x0",
            0x0600_0001: "trapped WFI or WFE, WFE",
            0x1FE0_0000: "access to SIMD or floating point, ISS 0x1e00000",
            0x0000_0000: "unknown reason, ISS 0x0",
            0xFC00_0000: "reserved exception class 0x3f, ISS 0x0",
        }.items():
            with self.subTest(f"{esr:#x}"):
                self.assertEqual(decode.syndrome(esr), words)

    def test_any_number_has_words(self):
        numbers = random.Random(1)
        for _ in range(20_000):
            value = numbers.getrandbits(64)
            self.assertTrue(decode.syndrome(value))
            self.assertTrue(decode.program_state(value))
            self.assertTrue(decode.leaf(value))

    def test_names_and_numbers_of_classes_are_unique(self):
        self.assertEqual(len(decode.CLASSES), len(decode.WORDS))
        self.assertEqual(len(decode.CLASSES), len(decode.BY_NAME))
        self.assertFalse(set(decode.BY_NAME) & set(decode.VECTORS))

    def test_the_ipa_is_hpfars_page_and_fars_offset(self):
        self.assertEqual(decode.faulting_ipa(0x9_0000, 0xFFFF_8000_0123_4018), 0x900_0018)

    def test_hpfar_holds_for_translation_faults_but_not_for_permission_faults_of_the_access_itself(self):
        self.assertTrue(decode.reports_ipa(0x9383_0005))
        self.assertFalse(decode.reports_ipa(0x9383_000F))
        self.assertTrue(decode.reports_ipa(0x9383_008F))
        self.assertFalse(decode.reports_ipa(0x5A00_0005))

    def test_program_states_have_words(self):
        self.assertEqual(decode.program_state(0x3C5), "EL1h, nzcv, masked: DAIF")
        self.assertEqual(decode.program_state(0x6040_0009), "EL2h, nZCv, masked: none, PAN")
        self.assertEqual(decode.program_state(0x1D3), "AArch32 mode 0x13, nzcv, masked: AIF")


class Stage2(unittest.TestCase):
    """The walk, in a memory of a few words."""

    def walk(self, ipa: int, memory: dict[int, int], vtcr: int = VTCR) -> list[str]:
        return decode.walk(ipa, 7 << 48 | 0x10_0000, vtcr, lambda address: memory.get(address, 0))

    def test_a_page_is_found_through_all_levels(self):
        memory = {0x10_0008: 0x20_0003, 0x20_0000: 0x30_0003, 0x30_0010: 0x0040_0000_8000_07FF}
        lines = self.walk(0x4000_2123, memory)
        self.assertEqual(lines[0], "VMID 7, 40-bit IPA, 4 KiB granule, from level 1")
        self.assertEqual([line.split(":")[0].split(" at ")[0] for line in lines[1:4]],
                         ["level 1 [1]", "level 2 [0]", "level 3 [2]"])
        self.assertIn("4 KiB page at 0x80000000, read-write, not executable, Normal write-back, inner shareable", lines[3])
        self.assertEqual(lines[4], "IPA 0x40002123 is PA 0x80000123")

    def test_a_block_ends_the_walk(self):
        lines = self.walk(0x4020_0123, {0x10_0008: 0x20_0003, 0x20_0008: 0x8020_0401})
        self.assertIn("2 MiB block at 0x80200000, no access, executable, Device-nGnRnE", lines[2])
        self.assertEqual(lines[3], "IPA 0x40200123 is PA 0x80200123")

    def test_what_is_not_mapped_says_at_which_level(self):
        self.assertEqual(self.walk(0, {})[-1], "IPA 0x0 is not mapped: translation fault, level 1")
        self.assertEqual(self.walk(0x4000_0000, {0x10_0008: 0x20_0003})[-1],
                         "IPA 0x40000000 is not mapped: translation fault, level 2")

    def test_concatenated_tables_follow_one_another(self):
        self.assertIn("level 1 [512] at 0x101000", self.walk(1 << 39, {})[1])

    def test_beyond_the_ipa_space_nothing_is_read(self):
        self.assertEqual(self.walk(1 << 40, {})[1:],
                         ["IPA 0x10000000000 is outside the IPA space: translation fault, level 0"])

    def test_other_granules_are_walked(self):
        wide = 64 - 36 | 1 << 6 | 1 << 14  # 64 KiB, from level 2
        lines = self.walk(0x2000_0000, {0x10_0008: 0xC000_07FD}, wide)
        self.assertIn("512 MiB block at 0xc0000000", lines[1])


class LoadAddress(unittest.TestCase):
    """Where QEMU puts a raw image."""

    def header(self, text_offset: int, image_size: int) -> bytes:
        return struct.pack("<QQQQ", 0, text_offset, image_size, 0) + bytes(24) + b"ARM\x64" + bytes(4)

    def test_the_header_decides(self):
        self.assertEqual(decode.load_address(self.header(0, 4096)), 0x4020_0000)
        self.assertEqual(decode.load_address(self.header(0x8_0000, 4096)), 0x4008_0000)
        self.assertEqual(decode.load_address(self.header(0, 0)), 0x4008_0000)
        self.assertEqual(decode.load_address(bytes(64)), 0x4008_0000)


if __name__ == "__main__":
    unittest.main()
