//! Tests of the door: what is sound is read as it is, and what is not never reaches `fdt`.
//!
//! Also the trees that tests elsewhere in `platform` read: [`Branch`] and the blobs of real boards.

use proptest::prelude::*;
use vm_fdt::{FdtReserveEntry, FdtWriter};

use super::node::{self, Cells};
use super::path::NodePath;
use super::*;

pub(crate) const VIRT_GICV2: &[u8] = include_bytes!("../../../tests/data/virt-gicv2.dtb");
pub(crate) const VIRT_GICV3: &[u8] = include_bytes!("../../../tests/data/virt-gicv3.dtb");

/// A node to be: name, properties, children.
#[derive(Clone, Debug, Default)]
pub(crate) struct Branch {
    name: String,
    properties: Vec<(String, Vec<u8>)>,
    children: Vec<Branch>,
}

pub(crate) fn branch(name: &str) -> Branch {
    Branch { name: name.into(), ..Branch::default() }
}

#[cfg_attr(miri, expect(dead_code, reason = "the board's tests, which use the rest, are not run there"))]
impl Branch {
    pub(crate) fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.set(name, value);
        self
    }

    pub(crate) fn cells(self, name: &str, cells: &[u32]) -> Self {
        let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.bytes(name, &value)
    }

    pub(crate) fn text(self, name: &str, text: &str) -> Self {
        self.bytes(name, format!("{text}\0").as_bytes())
    }

    pub(crate) fn with(mut self, child: Branch) -> Self {
        self.children.push(child);
        self
    }

    /// Replaces or adds a property; this is how tests break a sound tree.
    pub(crate) fn set(&mut self, name: &str, value: &[u8]) {
        self.properties.retain(|(old, _)| old != name);
        self.properties.push((name.into(), value.into()));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.properties.retain(|(old, _)| old != name);
        self.children.retain(|child| child.name != name);
    }

    /// Finds a node that is to be changed.
    pub(crate) fn at(&mut self, path: &str) -> &mut Self {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.fold(self, |node, name| node.children.iter_mut().find(|child| child.name == name).unwrap())
    }

    pub(crate) fn blob(&self, reservations: &[(u64, u64)]) -> Vec<u8> {
        let entry = |(start, size): &(u64, u64)| FdtReserveEntry::new(*start, *size).unwrap();
        let entries: Vec<_> = reservations.iter().map(entry).collect();
        let mut writer = FdtWriter::new_with_mem_reserv(&entries).unwrap();
        self.write(&mut writer);
        writer.finish().unwrap()
    }

    fn write(&self, writer: &mut FdtWriter) {
        let node = writer.begin_node(&self.name).unwrap();
        self.properties.iter().for_each(|(name, value)| writer.property(name, value).unwrap());
        self.children.iter().for_each(|child| child.write(writer));
        writer.end_node(node).unwrap();
    }
}

/// A bundle in the shape of a FIT image, with a property of several pages.
fn fit() -> Branch {
    let image =
        branch("kernel-1").bytes("data", &[0x5a; if cfg!(miri) { 91 } else { 9001 }]).text("type", "kernel");
    let hash = branch("hash-1").text("algo", "crc32").cells("value", &[0x1234_5678]);
    let image = image.with(hash);
    branch("").cells("timestamp", &[1]).with(branch("images").cells("#address-cells", &[1]).with(image)).with(
        branch("configurations")
            .text("default", "conf-1")
            .with(branch("conf-1").text("kernel", "kernel-1").bytes("empty", &[])),
    )
}

/// Blobs to mutate; under Miri, which takes seconds for a pass over a real board's, the small one.
fn samples() -> Vec<Vec<u8>> {
    let fit = fit().blob(&[(0x1000, 0x2000), (0, 0x1000)]);
    if cfg!(miri) { vec![fit] } else { vec![fit, VIRT_GICV2.to_vec(), VIRT_GICV3.to_vec()] }
}

/// A node's path and its properties.
type Listed = (String, Vec<(String, Vec<u8>)>);

/// The whole tree as `fdt` reads it.
fn listing(fdt: &Fdt<'_>) -> Vec<Listed> {
    let mut listing = Vec::new();
    let _: Result<(), ()> = NodePath::walk(fdt, |path| {
        let properties = path.node().properties();
        listing.push((path.to_string(), properties.map(|p| (p.name.into(), p.value.into())).collect()));
        Ok(())
    });
    listing
}

/// The structure block of a sound blob.
fn structure(blob: &[u8]) -> Range<usize> {
    let start = word_at(blob, field::STRUCTURE_OFFSET).map(to_usize).unwrap();
    start..start + word_at(blob, field::STRUCTURE_SIZE).map(to_usize).unwrap()
}

/// Overwrites chosen nodes and properties of a sound blob with FDT_NOPs, as libfdt does. `chosen` gets the
/// path and, for a property, its name.
pub(crate) fn nop_out(blob: &mut [u8], mut chosen: impl FnMut(&str, Option<&str>) -> bool) {
    let strings_start = word_at(blob, field::STRINGS_OFFSET).map(to_usize).unwrap();
    let strings = blob[strings_start..].to_vec();
    let range = structure(blob);
    let block = &mut blob[range];
    let (mut offset, mut path, mut gone_from) = (0, Vec::new(), None);
    loop {
        let (token, next) = token(block, offset).unwrap();
        let mut is_gone = gone_from.is_some();
        match token {
            Token::BeginNode { name } => {
                path.push(String::from_utf8(name.into()).unwrap());
                let depth = path.len();
                if depth > 1 && gone_from.is_none() && chosen(&path.join("/"), None) {
                    (gone_from, is_gone) = (Some(depth), true);
                }
            }
            Token::EndNode => {
                gone_from = gone_from.filter(|depth| *depth != path.len());
                path.pop();
            }
            Token::Property { name_offset, .. } => {
                let name = String::from_utf8(property_name(&strings, name_offset).unwrap().into()).unwrap();
                is_gone = is_gone || chosen(&path.join("/"), Some(&name));
            }
            Token::Nop => {}
            Token::End => return,
        }
        if is_gone {
            block[offset..next].chunks_mut(4).for_each(|word| word.copy_from_slice(&4_u32.to_be_bytes()));
        }
        offset = next;
    }
}

/// Everything that this library and its tests ever ask of a tree; under Miri, which takes minutes for that,
/// the nodes and properties only.
fn read_everything(fdt: &Fdt<'_>) {
    if cfg!(miri) {
        assert!(!listing(fdt).is_empty());
        return;
    }
    let _ = crate::board::Board::read(fdt).map_err(|error| error.to_string());
    assert_eq!(fdt.all_nodes().count(), listing(fdt).len());
    let _ = fdt.find_compatible(&["arm,pl011"]).is_some() || fdt.find_phandle(0x8005).is_some();
    let _ = fdt.memory_reservations().count() + fdt.strings().count();
    let names = ["reg", "compatible", "interrupts", "status", "ranges", "#size-cells", "data", "phandle"];
    let _: Result<(), ()> = NodePath::walk(fdt, |path| {
        for name in names {
            let node = path.node();
            let _ = (node::cell(node, name), node::number(node, name), node::string(node, name));
            let _ = node::strings(node, name).map(Iterator::count);
            let _ = node::value(node, name).map(|value| Cells::new(value).number(3));
        }
        let _ = (path.node().cell_sizes(), node::cell_counts(path.node()), path.is_available());
        for index in 0..4 {
            let _ = (path.region(index), path.required_region(index));
            let _ = (path.interrupt(fdt, index), path.required_interrupt(fdt, index));
        }
        let _ = path.reg().map(Iterator::count);
        assert_eq!(path.children().count(), path.node().children().count());
        assert!(NodePath::find(fdt, &path.to_string()).is_some());
        let _ = NodePath::resolve(fdt, path.node().name);
        Ok(())
    });
}

#[test]
fn a_sound_blob_is_read_unchanged() {
    for sample in samples() {
        let mut blob = sample.clone();
        assert_eq!(total_size(&blob), Ok(blob.len()));
        read_everything(&open(&mut blob).unwrap());
        assert_eq!(blob, sample);
    }
}

#[test]
fn a_blob_may_start_anywhere_and_have_bytes_behind_it() {
    for sample in samples() {
        for shift in 0..8 {
            let mut bytes = vec![0xff; shift];
            bytes.extend_from_slice(&sample);
            bytes.extend_from_slice(&[0xff; 5]);
            let fdt = open(&mut bytes[shift..]).unwrap();
            assert_eq!(fdt.total_size(), sample.len());
            assert!(listing(&fdt).len() > 3);
        }
    }
}

#[test]
fn each_truncation_is_refused() {
    let sample = fit().blob(&[]);
    for length in 0..sample.len() {
        let mut cut = sample[..length].to_vec();
        assert!(matches!(open(&mut cut), Err(DtbError::Truncated { .. })), "{length}");
        if length >= HEADER_BYTES {
            // A header that admits to the cut does not help: some block is outside or does not end.
            set_word(&mut cut, field::TOTAL_SIZE, u32::try_from(length).unwrap());
            assert!(open(&mut cut).is_err(), "{length}");
        }
    }
}

/// Changes one word of the header and returns what is said about it.
fn header_with(field: usize, value: u32) -> DtbError {
    let mut blob = fit().blob(&[]);
    set_word(&mut blob, field, value);
    open(&mut blob).unwrap_err()
}

#[test]
fn each_header_field_is_checked() {
    use DtbError::{Magic, Misplaced, Overlap, Version};
    assert_eq!(header_with(field::MAGIC, 0x2705_1956), Magic(0x2705_1956));
    assert_eq!(header_with(field::VERSION, 15), Version(15));
    assert_eq!(header_with(field::LAST_COMPATIBLE_VERSION, 18), Version(17));
    assert!(matches!(header_with(field::TOTAL_SIZE, u32::MAX), DtbError::Truncated { .. }));
    assert!(matches!(header_with(field::TOTAL_SIZE, 39), DtbError::Truncated { .. }));
    assert_eq!(header_with(field::STRUCTURE_OFFSET, 57), Misplaced(Block::Structure));
    assert_eq!(header_with(field::STRUCTURE_OFFSET, u32::MAX - 3), Misplaced(Block::Structure));
    assert_eq!(header_with(field::STRUCTURE_SIZE, u32::MAX), Misplaced(Block::Structure));
    assert_eq!(header_with(field::STRUCTURE_OFFSET, 0), Overlap(Block::Structure));
    assert_eq!(header_with(field::STRINGS_OFFSET, u32::MAX), Misplaced(Block::Strings));
    assert_eq!(header_with(field::STRINGS_SIZE, u32::MAX), Misplaced(Block::Strings));
    assert_eq!(header_with(field::STRINGS_OFFSET, 60), Overlap(Block::Strings));
    assert_eq!(header_with(field::RESERVATIONS_OFFSET, 44), Misplaced(Block::Reservations));
    // The value of a property could well be a list of reservations, but it is the structure block's.
    let mut blob = blob_of(&[1, 0, 3, 24, 0, 0, 0, 0, 0, 0, 0, 2, 9]);
    set_word(&mut blob, field::RESERVATIONS_OFFSET, 80);
    assert_eq!(open(&mut blob).map(|_| ()), Err(Overlap(Block::Reservations)));
    let size = u32::try_from(fit().blob(&[]).len()).unwrap() & !7;
    assert_eq!(header_with(field::RESERVATIONS_OFFSET, size), DtbError::EndlessReservations);
}

/// A blob whose structure block is these words; the names are `a` at 0 and `#size-cells` at 2.
fn blob_of(words: &[u32]) -> Vec<u8> {
    let (structure, names) = (56, b"a\0#size-cells\0");
    let strings = structure + 4 * words.len();
    let total = strings + names.len();
    let header = [0xd00d_feed, total, structure, strings, 40, 17, 16, 0, names.len(), 4 * words.len()];
    let header = header.map(|word| u32::try_from(word).unwrap());
    let words = header.iter().chain(&[0; 4]).chain(words);
    words.flat_map(|word| word.to_be_bytes()).chain(names.iter().copied()).collect()
}

#[test]
fn each_structure_that_fdt_would_stumble_over_is_refused() {
    const C: u32 = 0x6300_0000; // the name "c"
    let token = |offset, token| DtbError::Token { offset, token };
    let bad: &[(&[u32], DtbError)] = &[
        (&[], DtbError::Ends { offset: 0 }),
        (&[9], token(0, 9)),
        (&[1, 0, 2], DtbError::Ends { offset: 12 }),
        (&[1, 0, 9], token(8, 9)),
        (&[1, 0, 2, 2, 9], token(12, 2)),
        (&[1, 0, 2, 1, 0, 2, 9], token(12, 1)),
        (&[1, C, 2, 9], DtbError::NodeName { offset: 0 }),
        (&[1, 0, 1, 0, 2, 2, 9], DtbError::NodeName { offset: 8 }),
        (&[1, 0, 1, 0x2f00_0000, 2, 2, 9], DtbError::NodeName { offset: 8 }),
        (&[1, 0, 1, 0xff00_0000, 2, 2, 9], DtbError::NodeName { offset: 8 }),
        (&[1, 0, 1, 0x6161_6161], DtbError::Ends { offset: 8 }),
        (&[3, 0, 0, 1, 0, 2, 9], token(0, 3)),
        (&[1, 0, 2, 3, 0, 0, 9], token(12, 3)),
        (&[1, 0, 1, C, 2, 3, 0, 0, 2, 9], token(20, 3)),
        (&[1, 0, 5, 2, 9], token(8, 5)),
        (&[1, 0, 3, 8, 0, 2], DtbError::Ends { offset: 8 }),
        (&[1, 0, 3, u32::MAX, 0, 2, 9], DtbError::Ends { offset: 8 }),
        (&[1, 0, 3, 0, 99, 2, 9], DtbError::PropertyName { offset: 8 }),
        (&[1, 0, 3, 0, 1, 2, 9], DtbError::PropertyName { offset: 8 }),
        (&[1, 0, 3, 0, 2, 2, 9], DtbError::CellCount { offset: 8 }),
    ];
    for (words, error) in bad {
        assert_eq!(open(&mut blob_of(words)).map(|_| ()), Err(*error), "{words:x?}");
        assert!(!error.to_string().is_empty());
    }
    assert!(open(&mut blob_of(&[1, 0, 3, 0, 0, 1, C, 3, 4, 2, 7, 2, 2, 9])).is_ok());
}

#[test]
fn nodes_nest_to_the_limit_and_no_deeper() {
    let nested = |depth: usize| {
        let open = core::iter::repeat_n([1, 0x6300_0000], depth - 1).flatten();
        let words: Vec<u32> = [1, 0].into_iter().chain(open).chain(vec![2; depth]).chain([9]).collect();
        blob_of(&words)
    };
    read_everything(&open(&mut nested(MAX_DEPTH)).unwrap());
    let offset = 8 * MAX_DEPTH;
    assert_eq!(open(&mut nested(MAX_DEPTH + 1)).map(|_| ()), Err(DtbError::Depth { offset }));
}

#[test]
fn a_name_longer_than_the_limit_is_refused() {
    for (length, is_accepted) in [(MAX_PROPERTY_NAME_BYTES, true), (MAX_PROPERTY_NAME_BYTES + 1, false)] {
        let mut blob = blob_of(&[1, 0, 3, 0, 0, 2, 9]);
        blob.truncate(blob.len() - 14);
        blob.extend(core::iter::repeat_n(b'n', length).chain([0]));
        let (total, names) = (u32::try_from(blob.len()).unwrap(), u32::try_from(length + 1).unwrap());
        set_word(&mut blob, field::TOTAL_SIZE, total);
        set_word(&mut blob, field::STRINGS_SIZE, names);
        assert_eq!(open(&mut blob).is_ok(), is_accepted);
    }
}

#[test]
fn an_alias_to_itself_is_no_endless_loop() {
    let tree = branch("").with(branch("aliases").text("a", "a").text("b", "/b").bytes("c", &[0xff, 0]));
    let mut blob = tree.blob(&[]);
    let fdt = open(&mut blob).unwrap();
    for name in ["a", "b", "c", "", ":", "/", "//", "a:115200n8"] {
        let _ = NodePath::resolve(&fdt, name);
    }
    assert!(NodePath::resolve(&fdt, "a").is_none());
}

#[test]
fn version_16_is_read_by_its_end_token() {
    let mut expected = fit().blob(&[(1, 2)]);
    let mut blob = expected.clone();
    set_word(&mut blob, field::VERSION, 16);
    set_word(&mut blob, field::STRUCTURE_SIZE, 0xdead_beef);
    let fdt = open(&mut blob).unwrap();
    assert_eq!(listing(&fdt), listing(&open(&mut expected).unwrap()));
}

#[test]
fn bytes_after_the_end_token_are_not_read() {
    let mut blob = blob_of(&[1, 0, 2, 9, 1, 0, 2, 9]);
    let fdt = open(&mut blob).unwrap();
    let mut nodes = fdt.all_nodes();
    assert!(nodes.next().is_some() && nodes.next().is_none() && nodes.next().is_none());
}

#[test]
fn a_large_property_behind_a_nop_is_moved_as_one() {
    let kernel: Vec<u8> =
        (0..(if cfg!(miri) { 1001 } else { 4_000_001_u32 })).map(|i| i.to_le_bytes()[1]).collect();
    let mut blob = branch("").bytes("gone", &[1]).bytes("data", &kernel).blob(&[]);
    nop_out(&mut blob, |_, property| property == Some("gone"));
    let fdt = open(&mut blob).unwrap();
    assert_eq!(node::value(NodePath::root(&fdt).unwrap().node(), "data"), Some(kernel.as_slice()));
}

#[test]
fn a_million_nops_take_no_longer_than_their_bytes() {
    let nops = || core::iter::repeat_n(4, if cfg!(miri) { 500 } else { 500_000 });
    let words = [1, 0].into_iter().chain(nops()).chain([3, 4, 0, 7]).chain(nops()).chain([2, 4, 9]);
    let mut blob = blob_of(&words.collect::<Vec<_>>());
    let fdt = open(&mut blob).unwrap();
    assert_eq!(listing(&fdt), [("/".into(), vec![("a".into(), vec![0, 0, 0, 7])])]);
}

#[test]
fn a_failed_open_leaves_the_blob_as_it_was() {
    let bad = blob_of(&[1, 0, 4, 3, 4, 0, 7, 4, 2, 2, 9]);
    let mut blob = bad.clone();
    assert!(open(&mut blob).is_err());
    assert_eq!(blob, bad);
}

/// One thing that happens to a blob.
#[derive(Clone, Debug)]
enum Mutation {
    Byte(prop::sample::Index, u8),
    Word(prop::sample::Index, u32),
    Token(prop::sample::Index, u32),
    Insert(prop::sample::Index, Vec<u8>),
    Delete(prop::sample::Index, usize),
    Truncate(prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    let word = prop_oneof![0..12_u32, any::<u32>(), Just(u32::MAX), (0..600_u32).prop_map(|n| n * 4)];
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Byte(at, byte)),
        4 => (at(), word.clone()).prop_map(|(at, word)| Mutation::Word(at, word)),
        4 => (at(), word).prop_map(|(at, word)| Mutation::Token(at, word)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, new)| Mutation::Insert(at, new)),
        1 => (at(), 1..9_usize).prop_map(|(at, count)| Mutation::Delete(at, count)),
        1 => at().prop_map(Mutation::Truncate),
    ]
}

/// Where the tokens of a sound blob's structure block stand in the blob.
fn token_offsets(blob: &[u8]) -> Vec<usize> {
    let range = structure(blob);
    let block = &blob[range.clone()];
    let next = |offset: &usize| token(block, *offset).ok().map(|(_, next)| next);
    core::iter::successors(Some(0), next)
        .take_while(|offset| *offset < block.len())
        .map(|o| range.start + o)
        .collect()
}

fn mutate(blob: &mut Vec<u8>, mutation: &Mutation, tokens: &[usize]) {
    let length = blob.len();
    match mutation {
        _ if length == 0 => {}
        Mutation::Byte(at, byte) => blob[at.index(length)] = *byte,
        Mutation::Word(at, word) => set_word(blob, at.index(length) & !3, *word),
        // The token itself, a property's length or its name.
        Mutation::Token(at, word) => {
            let place = at.index(3 * tokens.len());
            set_word(blob, tokens[place / 3] + 4 * (place % 3), *word);
        }
        Mutation::Insert(at, new) => drop(blob.splice(at.index(length)..at.index(length), new.clone())),
        Mutation::Delete(at, count) => {
            let at = at.index(length);
            drop(blob.drain(at..(at + count).min(length)));
        }
        Mutation::Truncate(at) => blob.truncate(at.index(length)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    #[test]
    fn no_mutation_of_a_blob_panics_a_reader(
        which in 0..samples().len(), mutations in prop::collection::vec(mutation(), 1..5), fix_size in any::<bool>(),
    ) {
        let mut blob = samples()[which].clone();
        let tokens = token_offsets(&blob);
        mutations.iter().for_each(|mutation| mutate(&mut blob, mutation, &tokens));
        if fix_size {
            let total = u32::try_from(blob.len()).unwrap();
            set_word(&mut blob, field::TOTAL_SIZE, total);
        }
        let before = blob.clone();
        match open(&mut blob) {
            Ok(fdt) => {
                read_everything(&fdt);
                let first = listing(&fdt);
                // What was opened is sound, so opening it again changes nothing.
                let once = blob.clone();
                prop_assert_eq!(listing(&open(&mut blob).unwrap()), first);
                prop_assert_eq!(blob, once);
            }
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                prop_assert_eq!(blob, before);
            }
        }
    }

    #[test]
    fn a_tree_with_nops_reads_as_the_tree_without_those_parts(
        which in 0..samples().len(), gone in prop::collection::vec(prop::bool::weighted(0.1), 700),
    ) {
        let mut sample = samples()[which].clone();
        let mut blob = sample.clone();
        let mut gone_parts = Vec::new();
        let mut gone = gone.into_iter();
        nop_out(&mut blob, |path, property| {
            let is_gone = gone.next().unwrap_or(false);
            if is_gone {
                gone_parts.push((path.to_string(), property.map(String::from)));
            }
            is_gone
        });
        let mut expected = listing(&open(&mut sample).unwrap());
        for (path, property) in &gone_parts {
            let is_root = path.is_empty();
            match property {
                Some(property) => expected.iter_mut().filter(|(at, _)| at == path || (is_root && at == "/"))
                    .for_each(|(_, properties)| properties.retain(|(name, _)| name != property)),
                None => expected.retain(|(at, _)| at != path && !at.starts_with(&format!("{path}/"))),
            }
        }
        let fdt = open(&mut blob).unwrap();
        prop_assert_eq!(listing(&fdt), expected);
        read_everything(&fdt);
    }
}
