//! The two things a guest asks its device tree for: boot arguments, and where RAM is.
//!
//! Not a general reader, and it trusts the tree: a machine that gives a bad one is what a guest shows by failing.
//! Follows the Devicetree Specification 0.4, chapter 5.

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;

/// A flattened device tree.
#[derive(Clone, Copy)]
pub struct Fdt {
    bytes: &'static [u8],
}

impl Fdt {
    /// Takes the tree at `address`, or `None` where there is none.
    pub fn at(address: u64) -> Option<Self> {
        if address == 0 || !address.is_multiple_of(8) {
            return None;
        }
        let start = core::ptr::with_exposed_provenance::<u8>(address as usize);
        // SAFETY: X0 at reset is the address of a tree; its header has 40 bytes.
        let header = unsafe { core::slice::from_raw_parts(start, 40) };
        if word(header, 0)? != MAGIC {
            return None;
        }
        // SAFETY: the header says that the tree has this many bytes, and nobody writes them.
        Some(Self { bytes: unsafe { core::slice::from_raw_parts(start, word(header, 4)? as usize) } })
    }

    /// Returns property `name` of the first node of the root whose name begins with `node`.
    pub fn property(&self, node: &str, name: &str) -> Option<&'static [u8]> {
        let mut inside = false;
        self.tokens()?.find_map(|token| match token {
            Token::Node(2, text) => {
                inside = text.starts_with(node);
                None
            }
            Token::Property(2, key, value) if inside && key == name => Some(value),
            _ => None,
        })
    }

    /// Says whether any node's name begins with `name`.
    pub fn has_node(&self, name: &str) -> bool {
        self.tokens().is_some_and(|mut all| {
            all.any(|token| matches!(token, Token::Node(_, text) if text.starts_with(name)))
        })
    }

    /// Reads the tree in its order.
    fn tokens(&self) -> Option<Tokens> {
        let (at, strings) = (word(self.bytes, 8)? as usize, word(self.bytes, 12)? as usize);
        Some(Tokens { bytes: self.bytes, at, strings, depth: 0 })
    }

    /// Returns the kernel's command line; empty where there is none.
    pub fn bootargs(&self) -> &'static str {
        self.property("chosen", "bootargs").and_then(|value| string(value, 0)).unwrap_or("")
    }

    /// Returns start and size of RAM, in bytes.
    pub fn memory(&self) -> Option<(u64, u64)> {
        let reg = self.property("memory@", "reg")?;
        let double = |at| Some(u64::from(word(reg, at)?) << 32 | u64::from(word(reg, at + 4)?));
        Some((double(0)?, double(8)?))
    }
}

/// What a tree is made of, each with its depth: 1 is the root.
enum Token {
    Node(u32, &'static str),
    Property(u32, &'static str, &'static [u8]),
}

/// The tree, token by token.
struct Tokens {
    bytes: &'static [u8],
    at: usize,
    strings: usize,
    depth: u32,
}

impl Iterator for Tokens {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let token = word(self.bytes, self.at)?;
            let at = self.at + 4;
            self.at = at;
            match token {
                BEGIN_NODE => {
                    let text = string(self.bytes, at)?;
                    self.depth += 1;
                    self.at = (at + text.len() + 4) & !3;
                    return Some(Token::Node(self.depth, text));
                }
                END_NODE => self.depth -= 1,
                PROPERTY => {
                    let length = word(self.bytes, at)? as usize;
                    let key = string(self.bytes, self.strings + word(self.bytes, at + 4)? as usize)?;
                    let value = self.bytes.get(at + 8..at + 8 + length)?;
                    self.at = (at + 8 + length + 3) & !3;
                    return Some(Token::Property(self.depth, key, value));
                }
                NOP => {}
                _ => return None,
            }
        }
    }
}

/// Returns the big-endian word at `at`.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Returns the text at `at` up to its NUL.
fn string(bytes: &'static [u8], at: usize) -> Option<&'static str> {
    core::ffi::CStr::from_bytes_until_nul(bytes.get(at..)?).ok()?.to_str().ok()
}
