//! Kernels of every format, right and wrong, placed and loaded into a pretended guest RAM.

use super::*;
use alloc::format;
use alloc::string::ToString;
use miniz_oxide::deflate::compress_to_vec;
use proptest::prelude::*;

const BASE: u64 = 0x4000_0000;
const MIB: u64 = 1 << 20;

fn ipa(address: u64) -> Ipa {
    Ipa::new(address)
}

fn region(start: u64, bytes: u64) -> Region<Ipa> {
    Region::<Ipa>::new(ipa(start), bytes).unwrap()
}

fn ram(mib: u64) -> [Region<Ipa>; 1] {
    [region(BASE, mib * MIB)]
}

fn kernel(bytes: &[u8]) -> ImageRef<'_> {
    let path = "/images/kernel".to_string();
    ImageRef { path, bytes, compression: Compression::None, load: None, entry: None }
}

fn said(bytes: &[u8]) -> String {
    plan(&kernel(bytes), None, 0x1000, &ram(256)).unwrap_err().to_string()
}

/// An arm64 `Image` of `bytes` bytes.
fn image(bytes: usize, text_offset: u64, image_size: u64, flags: u64) -> Vec<u8> {
    let mut image: Vec<u8> = (0..bytes.max(64)).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
    image[8..16].copy_from_slice(&text_offset.to_le_bytes());
    image[16..24].copy_from_slice(&image_size.to_le_bytes());
    image[24..32].copy_from_slice(&flags.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

/// A program header: virtual address, physical address, bytes in the file, bytes in memory.
type Load<'a> = (u64, u64, &'a [u8], u64);

/// An ELF file of AArch64 with its segments one after another behind the headers.
fn elf(entry: u64, loads: &[Load<'_>]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 183] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    for word in [entry, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64, 56, u16::try_from(loads.len()).unwrap(), 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut offset = u64::try_from(64 + 56 * loads.len()).unwrap();
    for (virtual_address, physical, bytes, memory) in loads {
        let size = u64::try_from(bytes.len()).unwrap();
        file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
        for word in [offset, *virtual_address, *physical, size, *memory, 4] {
            file.extend(word.to_le_bytes());
        }
        offset += size;
    }
    loads.iter().for_each(|load| file.extend(load.2));
    file
}

/// A gzip file with a name in its header.
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut file = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
    file.extend(b"Image\0");
    file.extend(compress_to_vec(content, 6));
    file.extend(crate::fit::hash::CRC32.checksum(content).to_le_bytes());
    file.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
    file
}

/// RAM of a guest, filled with a pattern so that what is not written shows.
struct Memory {
    region: Region<Ipa>,
    bytes: Vec<u8>,
}

impl Memory {
    fn new(mib: u64) -> Self {
        Self { region: ram(mib)[0], bytes: vec![0xaa; usize::try_from(mib * MIB).unwrap()] }
    }

    fn slice(&mut self, start: Ipa, bytes: u64) -> Result<&mut [u8], OutsideRam> {
        let wanted = Region::<Ipa>::new(start, bytes).filter(|wanted| self.region.encloses(wanted));
        let offset = usize::try_from(wanted.ok_or(OutsideRam(start))?.start.get() - BASE).unwrap();
        Ok(&mut self.bytes[offset..][..usize::try_from(bytes).unwrap()])
    }

    fn get(&mut self, start: u64, bytes: usize) -> &[u8] {
        self.slice(ipa(start), u64::try_from(bytes).unwrap()).unwrap()
    }
}

impl GuestRam for Memory {
    fn write(&mut self, start: Ipa, bytes: &[u8]) -> Result<(), OutsideRam> {
        self.slice(start, length(bytes))?.copy_from_slice(bytes);
        Ok(())
    }

    fn zero(&mut self, start: Ipa, bytes: u64) -> Result<(), OutsideRam> {
        self.slice(start, bytes)?.fill(0);
        Ok(())
    }
}

#[test]
fn an_image_goes_text_offset_above_the_base_of_ram() {
    for (text_offset, image_size, start) in
        [(0, 0x1_0000, BASE), (0x8_0000, 0x1_0000, BASE + 0x8_0000), (0, 0, BASE + 0x8_0000)]
    {
        let file = image(0x1000, text_offset, image_size, 0b1010);
        let plan = plan(&kernel(&file), None, 0x1000, &ram(256)).unwrap();
        let memory = region(start, image_size.max(0x1000));
        assert_eq!(plan.segments, [Segment { memory, file_offset: 0, file_bytes: 0x1000 }]);
        assert_eq!(plan.entry, ipa(start));
    }
}

#[test]
fn an_image_starts_at_a_2_mib_boundary_of_uneven_ram() {
    let file = image(0x1000, 0x1000, 0x1000, 0);
    let plan = plan(&kernel(&file), None, 0x1000, &[region(BASE + 0x1000, 64 * MIB)]).unwrap();
    assert_eq!(plan.entry, ipa(BASE + 2 * MIB + 0x1000));
}

#[test]
fn the_lowest_region_of_ram_is_used_whatever_the_order() {
    let file = image(0x1000, 0, 0x1000, 0);
    let plan =
        plan(&kernel(&file), None, 0x1000, &[region(0x8000_0000, MIB), region(BASE, 64 * MIB)]).unwrap();
    assert_eq!(plan.entry, ipa(BASE));
}

#[test]
fn ramdisk_and_tree_lie_where_qemu_puts_them() {
    let (file, disk) = (image(0x1000, 0, 34 * MIB, 0), vec![1; 0x12345]);
    let disk = ImageRef { path: "/images/ramdisk".to_string(), ..kernel(&disk) };
    for (mib, initrd, tree) in [(1024, 128, 130), (128, 64, 66), (64, 34, 36)] {
        let plan = plan(&kernel(&file), Some(&disk), 0x1000, &ram(mib)).unwrap();
        assert_eq!(plan.initrd, Some(region(BASE + initrd * MIB, 0x12345)), "{mib} MiB");
        assert_eq!(plan.dtb, region(BASE + tree * MIB, 0x1000), "{mib} MiB");
    }
    let plan = plan(&kernel(&file), None, 0x1000, &ram(1024)).unwrap();
    assert_eq!((plan.initrd, plan.dtb.start), (None, ipa(BASE + 128 * MIB)));
}

#[test]
fn a_tree_fits_into_ram_too_small_for_a_2_mib_boundary() {
    let plan = plan(&kernel(b"code"), None, 0x1000, &ram(2)).unwrap();
    assert_eq!(plan.dtb, region(BASE + MIB, 0x1000));
}

#[test]
fn a_raw_binary_goes_where_qemu_puts_it_or_where_it_asks() {
    let raw = kernel(b"code");
    let placed = |image: &ImageRef<'_>| {
        let plan = plan(image, None, 0x1000, &ram(64)).unwrap();
        (plan.segments[0].memory.start.get(), plan.entry.get())
    };
    assert_eq!(placed(&raw), (BASE + 0x8_0000, BASE + 0x8_0000));
    let asked = ImageRef { load: Some(ipa(BASE + 0x100)), ..raw.clone() };
    assert_eq!(placed(&asked), (BASE + 0x100, BASE + 0x100));
    let longer = ImageRef { bytes: &[0; 64], entry: Some(ipa(BASE + 0x110)), ..asked };
    assert_eq!(placed(&longer), (BASE + 0x100, BASE + 0x110));
}

#[test]
fn an_elf_goes_to_its_physical_addresses_and_its_tree_to_the_base() {
    let high = 0xffff_0000_0000_0000;
    let file = elf(
        high + 0x8_0004,
        &[
            (high + 0x8_0000, BASE + 0x8_0000, b"textcode", 8),
            (high + 0x9_0000, BASE + 0x9_0000, b"data", 0x2000),
        ],
    );
    let plan = plan(&kernel(&file), None, 0x1000, &ram(64)).unwrap();
    assert_eq!(plan.entry, ipa(BASE + 0x8_0004));
    assert_eq!(plan.segments[1].memory, region(BASE + 0x9_0000, 0x2000));
    assert_eq!(plan.dtb, region(BASE, 0x1000));
}

#[test]
fn the_tree_of_an_elf_at_the_base_of_ram_goes_above_it() {
    let file = elf(BASE, &[(BASE, BASE, b"code", 4)]);
    assert_eq!(plan(&kernel(&file), None, 0x1000, &ram(64)).unwrap().dtb.start, ipa(BASE + 32 * MIB));
    let file = elf(BASE + 0x1000, &[(BASE + 0x1000, BASE + 0x1000, b"code", 4)]);
    assert_eq!(plan(&kernel(&file), None, 0x1000, &ram(64)).unwrap().dtb.start, ipa(BASE));
    assert_eq!(plan(&kernel(&file), None, 0x1001, &ram(64)).unwrap().dtb.start, ipa(BASE + 32 * MIB));
}

#[test]
fn load_moves_a_position_independent_elf_only() {
    let mut file = elf(4, &[(0, 0, b"textcode", 8), (0x1000, 0x1000, b"data", 0x10)]);
    let moved = ImageRef { load: Some(ipa(BASE + MIB)), ..kernel(&file) };
    assert_eq!(
        plan(&moved, None, 0x1000, &ram(64)).unwrap_err().to_string(),
        "/images/kernel: load: 0x40100000 contradicts the image: give 0x0 or leave the property out"
    );
    file[16] = 3;
    let moved = ImageRef { load: Some(ipa(BASE + MIB)), ..kernel(&file) };
    let plan = plan(&moved, None, 0x1000, &ram(64)).unwrap();
    assert_eq!((plan.entry, plan.segments[1].memory.start), (ipa(BASE + MIB + 4), ipa(BASE + MIB + 0x1000)));
}

#[test]
fn loading_copies_the_bytes_and_clears_the_rest() {
    let (file, disk) = (image(0x1003, 0, 0x4000, 0), b"the ramdisk".to_vec());
    let disk = ImageRef { path: "/images/ramdisk".to_string(), ..kernel(&disk) };
    let plan = plan(&kernel(&file), Some(&disk), 0x1000, &ram(4)).unwrap();
    let mut memory = Memory::new(4);
    plan.load(b"tree", &mut memory).unwrap();
    assert_eq!(memory.get(BASE, 0x1003), file);
    assert!(memory.get(BASE + 0x1003, 0x4000 - 0x1003).iter().all(|byte| *byte == 0));
    assert_eq!(memory.get(BASE + 0x4000, 1), [0xaa]);
    assert_eq!(memory.get(plan.initrd.unwrap().start.get(), 11), b"the ramdisk");
    assert_eq!(memory.get(plan.dtb.start.get(), 4), b"tree");
}

#[test]
fn a_compressed_kernel_loads_as_the_plain_one_does() {
    let big = image(100_000, 0x1000, 0x2_0000, 0);
    let text: Vec<u8> = big.iter().map(|byte| byte ^ 0x55).collect();
    let elf =
        elf(BASE + 0x9_0000, &[(BASE + 0x9_0000, BASE + 0x9_0000, &text, 100_500), (BASE, BASE, b"low", 3)]);
    for plain in [big, elf, b"raw code".to_vec()] {
        let (mut wanted, mut memory) = (Memory::new(4), Memory::new(4));
        plan(&kernel(&plain), None, 0x1000, &ram(4)).unwrap().load(b"tree", &mut wanted).unwrap();
        let packed = gzip(&plain);
        plan(&kernel(&packed), None, 0x1000, &ram(4)).unwrap().load(b"tree", &mut memory).unwrap();
        assert!(wanted.bytes == memory.bytes);
    }
}

#[test]
fn a_compressed_efi_kernel_is_unpacked() {
    let payload = gzip(&image(0x1000, 0, 0x1000, 0));
    let mut file = vec![0; 0x40];
    file[..8].copy_from_slice(b"MZ\0\0zimg");
    file[8..12].copy_from_slice(&0x40_u32.to_le_bytes());
    file[12..16].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    file[24..28].copy_from_slice(b"gzip");
    file.extend(&payload);
    file.extend(b"the rest of the EFI program");
    assert_eq!(plan(&kernel(&file), None, 0x1000, &ram(64)).unwrap().entry, ipa(BASE));
    let wanted =
        "/images/kernel: data: a compressed EFI kernel not packed with gzip: give its arch/arm64/boot/Image";
    file[24..28].copy_from_slice(b"zstd");
    assert_eq!(said(&file), wanted);
    file[24..28].copy_from_slice(b"gzip");
    file[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(said(&file), wanted);
}

#[test]
fn what_is_no_arm64_kernel_is_named() {
    let at = |offset: usize, magic: &[u8]| {
        let mut file = vec![0; 0x400];
        file[offset..offset + magic.len()].copy_from_slice(magic);
        file
    };
    let arm64 = "give one built for arm64";
    let gzip_or_not = "compress it with gzip or not at all";
    let rows = [
        (vec![], "empty: give an arm64 Image, a gzipped one, an ELF or a raw binary".to_string()),
        (at(0x202, b"HdrS"), format!("an x86 kernel (bzImage): {arm64}")),
        (at(0x24, &[0x18, 0x28, 0x6f, 1]), format!("a 32-bit Arm kernel (zImage): {arm64}")),
        (at(0x38, b"RSC\x05"), format!("a RISC-V kernel: {arm64}")),
        (at(0, b"MZ"), format!("an EFI program that is no arm64 kernel: {arm64}")),
        (at(0, &[0x27, 5, 0x19, 0x56]), "a legacy uImage: give the kernel that was put into it".to_string()),
        (at(0, &[0xd0, 0xd, 0xfe, 0xed]), "a device tree or a FIT image: give a kernel".to_string()),
        (at(0, &[0x28, 0xb5, 0x2f, 0xfd]), format!("compressed with zstd: {gzip_or_not}")),
        (at(0, b"\xfd7zXZ\0"), format!("compressed with xz: {gzip_or_not}")),
        (gzip(&gzip(b"code")), format!("compressed with gzip twice: {gzip_or_not}")),
        (
            image(64, 0, 64, 1),
            "a big-endian arm64 Image: build the kernel with CONFIG_CPU_LITTLE_ENDIAN".to_string(),
        ),
    ];
    for (file, wanted) in rows {
        assert_eq!(said(&file), format!("/images/kernel: data: {wanted}"));
    }
}

#[test]
fn each_mistake_in_an_elf_has_its_sentence() {
    let good = || elf(BASE, &[(BASE, BASE, b"code", 4), (BASE + 0x1000, BASE + 0x1000, b"data", 8)]);
    assert!(plan(&kernel(&good()), None, 0x1000, &ram(64)).is_ok());
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = good();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let (first, second) = (64, 64 + 56);
    let rows = [
        (good()[..20].to_vec(), "its headers cannot be read: link the kernel again"),
        (good()[..100].to_vec(), "its headers cannot be read: link the kernel again"),
        (patched(54, &[32]), "its headers cannot be read: link the kernel again"),
        (patched(4, &[1]), "32-bit: link the kernel for 64-bit AArch64"),
        (patched(5, &[2]), "big-endian: link the kernel for little-endian AArch64"),
        (patched(18, &[62]), "e_machine is 62: link the kernel for AArch64, 183"),
        (patched(16, &[1]), "e_type is 1: give a linked program, 2 or 3"),
        (patched(56, &[0]), "no PT_LOAD segment: link the kernel again"),
        (elf(BASE, &[(BASE, BASE, b"", 0)]), "no PT_LOAD segment: link the kernel again"),
        (
            elf(BASE, &[(BASE, BASE, &b"code"[..], 4); 65]),
            "more than 64 PT_LOAD segments: link the kernel with fewer",
        ),
        (
            patched(first + 32, &[9]),
            "segment has 0x9 bytes in the file and 0x4 in memory: link the kernel again",
        ),
        (
            patched(second + 8, &[0xff; 8]),
            "segment of 0x4 bytes at offset 0xffffffffffffffff is not in the file: copy it again",
        ),
        (
            patched(second + 24, &(BASE + 3).to_le_bytes()),
            "segments at 0x40000000 and 0x40000003 overlap: link the kernel with p_paddr apart",
        ),
    ];
    for (file, wanted) in rows {
        assert_eq!(said(&file), format!("/images/kernel: data: ELF: {wanted}"));
    }
    let far = patched(32, &40_000_u64.to_le_bytes());
    let far: Vec<u8> = far.into_iter().chain((0..90_000_u32).map(|at| at.to_le_bytes()[1])).collect();
    assert_eq!(
        said(&gzip(&far)),
        "/images/kernel: data: ELF: program headers at 0x9c40 of a compressed file: give the file uncompressed"
    );
}

#[test]
fn a_kernel_that_does_not_fit_says_what_is_too_small() {
    let kernel_said =
        |image: ImageRef<'_>, mib: u64| plan(&image, None, 0x1000, &ram(mib)).unwrap_err().to_string();
    let (file, elf) = (image(64, 0, 33 * MIB, 0), elf(BASE, &[(BASE, BASE - 0x1000, b"code", 4)]));
    let rows = [
        (
            kernel_said(kernel(&file), 32),
            "0x2100000 bytes of kernel do not fit into the RAM at 0x40000000..=0x41ffffff: give the VM more in /memory",
        ),
        (
            kernel_said(ImageRef { load: Some(ipa(BASE + 0x1000)), ..kernel(&file) }, 64),
            "load: 0x40001000 contradicts the image: give 0x40000000 or leave the property out",
        ),
        (
            kernel_said(ImageRef { entry: Some(ipa(BASE + 4)), ..kernel(&file) }, 64),
            "entry: 0x40000004 contradicts the image: give 0x40000000 or leave the property out",
        ),
        (
            kernel_said(ImageRef { load: Some(ipa(0x20_0000)), ..kernel(&file) }, 64),
            "data: 0x2100000 bytes at 0x200000 are not in the VM's RAM: \
             link or load the kernel for an address in /memory",
        ),
        (
            kernel_said(kernel(&elf), 64),
            "data: 0x4 bytes at 0x3ffff000 are not in the VM's RAM: \
             link or load the kernel for an address in /memory",
        ),
        (
            kernel_said(ImageRef { load: Some(ipa(BASE + 2)), ..kernel(b"code") }, 64),
            "load: 0x40000002 is not a multiple of 4: give the address of an instruction",
        ),
        (
            kernel_said(ImageRef { entry: Some(ipa(BASE + 0x8_0002)), ..kernel(b"code") }, 64),
            "entry: 0x40080002 is not a multiple of 4: give the address of an instruction",
        ),
        (
            kernel_said(ImageRef { entry: Some(ipa(BASE)), ..kernel(b"code") }, 64),
            "entry: 0x40000000 is in no part of the kernel: give the address of its first instruction",
        ),
    ];
    for (said, wanted) in rows {
        assert_eq!(said, format!("/images/kernel: {wanted}"));
    }
}

#[test]
fn a_ramdisk_or_tree_that_does_not_fit_says_so() {
    let disk = vec![0; 40 << 20];
    let disk = ImageRef { path: "/images/ramdisk".to_string(), ..kernel(&disk) };
    let said = |disk: Option<&ImageRef<'_>>, tree: u64, ram: &[Region<Ipa>]| {
        plan(&kernel(b"code"), disk, tree, ram).unwrap_err().to_string()
    };
    assert_eq!(
        said(Some(&disk), 0x1000, &ram(64)),
        "/images/ramdisk: 0x2800000 bytes of initrd do not fit into the RAM at 0x40000000..=0x43ffffff: \
         give the VM more in /memory"
    );
    assert_eq!(
        said(None, 0x10_0001, &ram(2)),
        "/memory: 0x100001 bytes of device tree do not fit into the RAM at 0x40000000..=0x401fffff: \
         give the VM more in /memory"
    );
    assert_eq!(
        said(None, 0x20_0001, &ram(64)),
        "/memory: 0x200001 bytes of device tree: arm64 kernels accept 2 MiB: make it smaller"
    );
    assert_eq!(said(None, 0x1000, &[]), "/memory: missing: give the VM RAM");
}

#[test]
fn a_tree_longer_than_planned_is_not_loaded() {
    let plan = plan(&kernel(b"code"), None, 4, &ram(2)).unwrap();
    let fault = plan.load(b"a tree", &mut Memory::new(2)).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "/memory: 0x6 bytes of device tree do not fit into the RAM at 0x40100000..=0x40100003: \
         give the VM more in /memory"
    );
}

#[test]
fn a_damaged_gzip_file_is_found_before_the_vm_starts() {
    let content = image(100_000, 0, 0, 0);
    let good = gzip(&content);
    let end = good.len();
    let load = |file: &[u8], compression| {
        let image = ImageRef { compression, ..kernel(file) };
        let result =
            plan(&image, None, 0x1000, &ram(4)).and_then(|plan| plan.load(b"tree", &mut Memory::new(4)));
        result.map_err(|fault| fault.to_string())
    };
    let patched = |at: usize, change: u8| {
        let mut file = good.clone();
        file[at] ^= change;
        file
    };
    assert_eq!(load(&good, Compression::Gzip), Ok(()));
    let checksum = crate::fit::hash::CRC32.checksum(&content);
    let rows = [
        (
            b"code".to_vec(),
            "not a gzip file: compress it with gzip or say compression = \"none\"".to_string(),
        ),
        (patched(2, 1), "gzip header cannot be read: compress it again".to_string()),
        (good[..8].to_vec(), "gzip header cannot be read: compress it again".to_string()),
        (good[..20].to_vec(), "gzip file is truncated: compress it again".to_string()),
        (patched(16, 2), "gzip file is corrupt: compress it again".to_string()),
        (
            patched(end - 4, 1),
            "gzip file does not hold the 100001 bytes it says: compress it again".to_string(),
        ),
        (
            patched(end - 8, 1),
            format!(
                "gzip crc32 is {:#010x}, the data says {checksum:#010x}: compress it again",
                checksum ^ 1
            ),
        ),
        (
            [&good[..], &good[end - 8..]].concat(),
            "bytes follow the end of the gzip file: compress it again as one stream".to_string(),
        ),
    ];
    for (file, wanted) in rows {
        assert_eq!(load(&file, Compression::Gzip), Err(format!("/images/kernel: data: {wanted}")));
    }
}

#[test]
fn every_optional_field_of_a_gzip_header_is_skipped() {
    let plain = gzip(b"raw code");
    let mut file = vec![0x1f, 0x8b, 8, 0b1_1111, 0, 0, 0, 0, 0, 3];
    file.extend([3, 0, 1, 2, 3]);
    file.extend(b"name\0comment\0");
    file.extend([0xcc, 0xcc]);
    file.extend(&plain[16..]);
    let plan = plan(&kernel(&file), None, 0x1000, &ram(2)).unwrap();
    let mut memory = Memory::new(2);
    plan.load(b"tree", &mut memory).unwrap();
    assert_eq!(memory.get(BASE + 0x8_0000, 8), b"raw code");
}

/// Kernels that are nearly right.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let loads: [Load<'_>; 2] =
        [(BASE, BASE, b"codecode", 8), (BASE + 0x1000, BASE + 0x1000, b"data", 0x2000)];
    let elf = elf(BASE, &loads);
    let seeds =
        [image(80, 0, 0x1000, 0), elf.clone(), gzip(&elf), gzip(&image(5000, 0, 0, 0)), b"code".to_vec()];
    let changes = proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6);
    (proptest::sample::select(seeds.to_vec()), changes, any::<usize>()).prop_map(
        |(mut file, changes, cut)| {
            for (at, byte) in changes {
                let at = at % file.len().min(200);
                file[at] = byte;
            }
            if cut.is_multiple_of(4) {
                file.truncate(cut / 4 % file.len());
            }
            file
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    /// Whatever the file says: what is planned is in RAM, apart from each other, and loads.
    #[test]
    fn a_plan_stays_in_ram_and_overlaps_nothing(
        file in nearly(),
        load in proptest::option::of(prop_oneof![any::<u64>(), Just(BASE), Just(BASE + 2 * MIB)]),
        entry in proptest::option::of(prop_oneof![any::<u64>(), Just(BASE)]),
        disk in 0..200_000_usize,
        tree in 0..300_000_u64,
        start in prop_oneof![Just(BASE), Just(BASE + 0x1000), Just(u64::MAX - 4 * MIB + 1)],
    ) {
        let ram = [region(start, 4 * MIB)];
        let kernel = ImageRef { load: load.map(ipa), entry: entry.map(ipa), ..kernel(&file) };
        let bytes = vec![7; disk];
        let disk = ImageRef { path: "/images/ramdisk".to_string(), bytes: &bytes, ..kernel.clone() };
        if let Ok(plan) = plan(&kernel, Some(&disk), tree, &ram) {
            let mut all: Vec<_> = plan.segments.iter().map(|segment| segment.memory).collect();
            all.extend(plan.initrd);
            all.push(plan.dtb);
            for (index, one) in all.iter().enumerate() {
                prop_assert!(ram[0].encloses(one));
                prop_assert!(all[index + 1..].iter().all(|other| !one.overlaps(other)), "{:?}", plan);
            }
            prop_assert!(plan.dtb.start.is_aligned(8) && plan.entry.is_aligned(4));
            if start == BASE {
                let loaded = plan.load(b"tree", &mut Memory::new(4));
                prop_assert!(matches!(
                    loaded,
                    Ok(()) | Err(KernelError { fault: KernelFault::Gzip(_) | KernelFault::NoRoom { .. }, .. })
                ), "{:?}", loaded);
            }
        }
    }
}
