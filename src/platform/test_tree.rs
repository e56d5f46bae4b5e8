//! Device trees for tests, built node by node and changed where a test wants them wrong.
//!
//! Not in the product: compiled for tests only.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use proptest::prelude::*;
use vm_fdt::FdtWriter;

/// A node with its properties and children.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Name with unit address; empty for the root.
    pub name: String,
    /// Properties in order.
    pub properties: Vec<(String, Vec<u8>)>,
    /// Child nodes in order.
    pub children: Vec<Tree>,
}

impl Tree {
    /// Starts the root node.
    pub fn root() -> Self {
        Self::default()
    }

    /// Starts a node.
    pub fn node(name: &str) -> Self {
        Self { name: name.to_string(), ..Self::default() }
    }

    /// Sets a property to bytes.
    pub fn bytes(mut self, property: &str, value: &[u8]) -> Self {
        self.set(property, value);
        self
    }

    /// Sets a property to a list of cells.
    pub fn cells(self, property: &str, cells: &[u32]) -> Self {
        let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.bytes(property, &bytes)
    }

    /// Sets a property to a string; `|` separates the strings of a list.
    pub fn text(self, property: &str, text: &str) -> Self {
        let bytes: Vec<u8> = text.bytes().map(|b| if b == b'|' { 0 } else { b }).chain([0]).collect();
        self.bytes(property, &bytes)
    }

    /// Sets an empty property.
    pub fn flag(self, property: &str) -> Self {
        self.bytes(property, &[])
    }

    /// Adds a child.
    pub fn child(mut self, child: Tree) -> Self {
        self.children.push(child);
        self
    }

    fn set(&mut self, property: &str, value: &[u8]) {
        match self.properties.iter_mut().find(|(name, _)| name == property) {
            Some((_, old)) => *old = value.to_vec(),
            None => self.properties.push((property.to_string(), value.to_vec())),
        }
    }

    /// Returns the node at `path`, which must exist.
    pub fn at(&mut self, path: &str) -> &mut Tree {
        path.split('/')
            .filter(|part| !part.is_empty())
            .fold(self, |node, part| node.children.iter_mut().find(|child| child.name == part).expect(part))
    }

    /// Changes the node at `path`.
    pub fn with(mut self, path: &str, change: impl FnOnce(Tree) -> Tree) -> Self {
        let node = self.at(path);
        *node = change(core::mem::take(node));
        self
    }

    /// Removes a property of this node, or the child of that name.
    pub fn without(mut self, name: &str) -> Self {
        self.properties.retain(|(property, _)| property != name);
        self.children.retain(|child| child.name != name);
        self
    }

    /// Lists the paths of all nodes, this one first (as the empty string).
    pub fn paths(&self) -> Vec<String> {
        let mut all = Vec::from([String::new()]);
        for child in &self.children {
            all.extend(child.paths().iter().map(|rest| alloc::format!("/{}{rest}", child.name)));
        }
        all
    }

    /// Writes the blob.
    pub fn blob(&self) -> Vec<u8> {
        let mut writer = FdtWriter::new().unwrap();
        self.write(&mut writer);
        writer.finish().unwrap()
    }

    fn write(&self, writer: &mut FdtWriter) {
        let node = writer.begin_node(&self.name).unwrap();
        for (name, value) in &self.properties {
            writer.property(name, value).unwrap();
        }
        for child in &self.children {
            child.write(writer);
        }
        writer.end_node(node).unwrap();
    }
}

/// A random change of a tree, which stays well-formed.
#[derive(Clone, Debug)]
pub struct Change {
    node: usize,
    property: usize,
    kind: ChangeKind,
}

#[derive(Clone, Debug)]
enum ChangeKind {
    Replace(Vec<u8>),
    Cells(Vec<u32>),
    FlipBit(usize),
    Truncate(usize),
    RemoveProperty,
    RemoveNode,
    RepeatNode,
    CopyFrom(usize),
}

/// Makes random changes.
pub fn changes() -> impl Strategy<Value = Change> {
    let interesting = prop_oneof![0..4_u32, Just(u32::MAX), Just(0x4000_0000), Just(0xfff), any::<u32>()];
    let kind = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..24).prop_map(ChangeKind::Replace),
        proptest::collection::vec(interesting, 0..8).prop_map(ChangeKind::Cells),
        any::<usize>().prop_map(ChangeKind::FlipBit),
        any::<usize>().prop_map(ChangeKind::Truncate),
        Just(ChangeKind::RemoveProperty),
        Just(ChangeKind::RemoveNode),
        Just(ChangeKind::RepeatNode),
        any::<usize>().prop_map(ChangeKind::CopyFrom),
    ];
    (any::<usize>(), any::<usize>(), kind).prop_map(|(node, property, kind)| Change { node, property, kind })
}

impl Change {
    /// Changes `tree`.
    pub fn apply(&self, tree: &mut Tree) {
        let paths = tree.paths();
        let path = &paths[self.node % paths.len()];
        if let Some((parent, name)) = path.rsplit_once('/') {
            let parent = tree.at(parent);
            match self.kind {
                ChangeKind::RemoveNode => return parent.children.retain(|child| child.name != name),
                ChangeKind::RepeatNode => {
                    let mut copy = parent.at(name).clone();
                    copy.name.push('9');
                    return parent.children.push(copy);
                }
                _ => {}
            }
        }
        if let ChangeKind::CopyFrom(other) = self.kind {
            let properties = tree.at(&paths[other % paths.len()]).properties.clone();
            return tree.at(path).properties.extend(properties);
        }
        let node = tree.at(path);
        let count = node.properties.len().max(1);
        let Some((_, value)) = node.properties.get_mut(self.property % count) else { return };
        match &self.kind {
            ChangeKind::Replace(bytes) => *value = bytes.clone(),
            ChangeKind::Cells(cells) => *value = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect(),
            ChangeKind::FlipBit(at) if !value.is_empty() => {
                let at = at % (value.len() * 8);
                value[at / 8] ^= 1 << (at % 8);
            }
            ChangeKind::Truncate(at) => value.truncate(at % (value.len() + 1)),
            _ => drop(node.properties.remove(self.property % count)),
        }
    }
}
