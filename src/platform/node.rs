//! Strict readers of device-tree properties, shared by everything that reads a tree.
//!
//! Not here: the walk over a blob's tokens, which is the `fdt` crate's. Of that crate only the node and
//! property iterators are used: its typed accessors panic on trees that are well-formed but odd.
//! Follows the Devicetree Specification v0.4, 2.2.4 (property values) and 2.3 (standard properties).

use alloc::string::String;
use alloc::vec::Vec;
use fdt::Fdt;

/// A node of a tree: `'t` borrows the reader, `'a` the blob.
pub(crate) type Node<'t, 'a> = fdt::node::FdtNode<'t, 'a>;

/// Longest name that an error repeats, in characters.
const SHOWN_CHARS: usize = 64;

/// Returns the root node, under the name `/`; `None` if the tree has none.
///
/// Not by `find_node`, which where it fails follows aliases, also one to itself.
pub(crate) fn root<'t, 'a>(tree: &'t Fdt<'a>) -> Option<Node<'t, 'a>> {
    tree.all_nodes().next().filter(|node| node.name == "/")
}

/// Returns the child with exactly this name, unit address included.
pub(crate) fn child<'t, 'a>(node: Node<'t, 'a>, name: &str) -> Option<Node<'t, 'a>> {
    node.children().find(|child| child.name == name)
}

/// Returns the bytes of a property; `None` if the node lacks it.
pub(crate) fn value<'a>(node: Node<'_, 'a>, property: &str) -> Option<&'a [u8]> {
    node.properties().find(|found| found.name == property).map(|found| found.value)
}

/// Reads a `<string>`: printable, closed by the only NUL in it.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    let (last, body) = value.split_last()?;
    let text = core::str::from_utf8(body).ok()?;
    (*last == 0 && !text.chars().any(char::is_control)).then_some(text)
}

/// Reads a `<stringlist>`: each string printable and closed by a NUL; at least one.
pub(crate) fn texts(value: &[u8]) -> Option<Vec<&str>> {
    value
        .split_inclusive(|byte| *byte == 0)
        .map(text)
        .collect::<Option<Vec<_>>>()
        .filter(|all| !all.is_empty())
}

/// Reads a value of exactly one cell, `<u32>`.
pub(crate) fn cell(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// Reads a number of one or two cells, `<u32>` or `<u64>`, whichever the value's length says.
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    cell(value).map(u64::from).or_else(|| Some(u64::from_be_bytes(value.try_into().ok()?)))
}

/// Reads a list of cells; `None` if bytes are left over.
pub(crate) fn cells(value: &[u8]) -> Option<Vec<u32>> {
    let (words, rest) = value.as_chunks::<4>();
    rest.is_empty().then(|| words.iter().map(|word| u32::from_be_bytes(*word)).collect())
}

/// How many cells an address and a size take in the `reg` of a node's children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CellCounts {
    /// `#address-cells`, 2 where it is not given.
    pub(crate) address: u32,
    /// `#size-cells`, 1 where it is not given.
    pub(crate) size: u32,
}

impl CellCounts {
    /// Reads the counts that `node` sets for its children; the property that is not one cell is the error.
    pub(crate) fn of(node: Node<'_, '_>) -> Result<Self, &'static str> {
        let count = |property: &'static str, default| match value(node, property) {
            None => Ok(default),
            Some(value) => cell(value).ok_or(property),
        };
        Ok(Self { address: count("#address-cells", 2)?, size: count("#size-cells", 1)? })
    }

    /// Splits a `reg` value into (address, size) pairs; an absent size is 0.
    ///
    /// `None` if the value is empty, is no whole number of pairs, or if addresses or sizes have more than two
    /// cells (or addresses none).
    pub(crate) fn pairs(self, value: &[u8]) -> Option<Vec<(u64, u64)>> {
        if !(1..=2).contains(&self.address) || self.size > 2 || value.is_empty() {
            return None;
        }
        let address_bytes = usize::try_from(self.address).ok()?.checked_mul(4)?;
        let pair_bytes = usize::try_from(self.size).ok()?.checked_mul(4)?.checked_add(address_bytes)?;
        let pair = |bytes: &[u8]| {
            let (address, size) = bytes.split_at_checked(address_bytes)?;
            let size = if size.is_empty() { Some(0) } else { number(size) };
            (bytes.len() == pair_bytes).then_some((number(address)?, size?))
        };
        value.chunks(pair_bytes).map(pair).collect()
    }
}

/// Tells whether `status` says that the node is in use (Devicetree Specification v0.4, 2.3.4).
pub(crate) fn is_enabled(node: Node<'_, '_>) -> bool {
    value(node, "status").is_none_or(|status| matches!(text(status), Some("okay" | "ok")))
}

/// Appends the name of a child to the path of its parent.
pub(crate) fn join(parent: &str, name: &str) -> String {
    let mut path = String::from(parent.trim_end_matches('/'));
    path.push('/');
    path.push_str(&shown(name));
    path
}

/// Returns a foreign name as an error may repeat it: bounded, and without control characters.
pub(crate) fn shown(name: &str) -> String {
    name.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tree::Tree;
    use alloc::vec;

    #[test]
    fn a_string_is_closed_by_its_only_nul() {
        assert_eq!(text(b"okay\0"), Some("okay"));
        assert_eq!(text(b"\0"), Some(""));
        for wrong in [&b"okay"[..], b"", b"ok\0ay\0", b"\xff\0", b"a\x1b[2J\0"] {
            assert_eq!(text(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_string_list_has_no_open_end() {
        assert_eq!(texts(b"a\0b\0"), Some(vec!["a", "b"]));
        assert_eq!(texts(b"a\0b"), None);
        assert_eq!(texts(b""), None);
    }

    #[test]
    fn numbers_take_one_or_two_cells() {
        assert_eq!(number(&[0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0, 0, 0, 1, 0, 0, 0, 0]), Some(1 << 32));
        assert_eq!(number(&[0; 3]), None);
        assert_eq!(number(&[0; 12]), None);
        assert_eq!(cells(&[0, 0, 0, 1, 0, 0, 0, 2]), Some(vec![1, 2]));
        assert_eq!(cells(&[0; 5]), None);
    }

    #[test]
    fn reg_is_split_as_the_parent_says() {
        let two = CellCounts { address: 2, size: 1 };
        assert_eq!(two.pairs(&[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]), Some(vec![(0x1_0000_0002, 3)]));
        assert_eq!(two.pairs(&[0; 16]), None);
        assert_eq!(two.pairs(&[]), None);
        assert_eq!(CellCounts { address: 1, size: 0 }.pairs(&[0, 0, 0, 7]), Some(vec![(7, 0)]));
        assert_eq!(CellCounts { address: 3, size: 1 }.pairs(&[0; 16]), None);
        assert_eq!(CellCounts { address: 0, size: 0 }.pairs(&[0; 16]), None);
        assert_eq!(CellCounts { address: u32::MAX, size: u32::MAX }.pairs(&[0; 16]), None);
    }

    #[test]
    fn cell_counts_have_defaults_and_must_be_cells() {
        let blob = Tree::root().child(Tree::node("odd").text("#size-cells", "2")).blob();
        let tree = Fdt::new(&blob).unwrap();
        let root = root(&tree).unwrap();
        assert_eq!(CellCounts::of(root), Ok(CellCounts { address: 2, size: 1 }));
        assert_eq!(CellCounts::of(child(root, "odd").unwrap()), Err("#size-cells"));
    }

    #[test]
    fn names_in_errors_cannot_drive_a_terminal() {
        assert_eq!(join("/", "a\x1b[2J"), "/a?[2J");
        assert_eq!(join("/soc", "b@0"), "/soc/b@0");
        assert_eq!(shown(&"x".repeat(1000)).len(), SHOWN_CHARS);
    }
}
