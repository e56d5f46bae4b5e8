//! What can be wrong with a bundle, in words.

use super::hash::{Hash, PROVIDED};
use alloc::string::String;
use core::fmt;

/// A fault of a bundle and the place in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FitError {
    /// Path of the node, or `bundle` for the file as a whole.
    pub node: String,
    /// What is wrong there.
    pub fault: FitFault,
}

/// What is wrong with a node of a bundle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FitFault {
    /// The file does not start as a device tree does.
    NotATree,
    /// The file is shorter than its header says; both in bytes.
    Truncated {
        /// Length by the header.
        says: u64,
        /// Length there is.
        has: u64,
    },
    /// A node is missing below this one.
    NoNode(&'static str),
    /// `/configurations` is empty.
    NoMachine,
    /// A property is missing.
    Missing {
        /// Its name.
        property: &'static str,
        /// What it would say.
        wanted: &'static str,
    },
    /// A property's value cannot be read.
    Malformed {
        /// Its name.
        property: &'static str,
        /// What it would be.
        wanted: &'static str,
    },
    /// A property asks for something that is not provided.
    Unsupported {
        /// Its name.
        property: &'static str,
        /// Its value.
        value: String,
        /// What is provided.
        wanted: &'static str,
    },
    /// A property of the hypervisor's own, of which a bundle has none.
    OwnProperty(String),
    /// A configuration asks for a kind of image that a VM does not have.
    NotLoaded(&'static str),
    /// A configuration names an image that does not exist.
    NoSuchImage {
        /// The property that names it.
        property: &'static str,
        /// The name.
        image: String,
    },
    /// A configuration names several images where one is possible.
    SeveralImages(&'static str),
    /// External data lies outside the file; offsets from its start, in bytes.
    OutsideFile {
        /// The property that points there.
        property: &'static str,
        /// First byte.
        start: u64,
        /// Length of the data.
        size: u64,
        /// Length of the file.
        file: u64,
    },
    /// The image is encrypted.
    Encrypted,
    /// A hash value has the wrong length, in bytes.
    HashLength {
        /// The algorithm.
        algo: String,
        /// Length it has.
        has: usize,
        /// Length the algorithm gives.
        wanted: usize,
    },
    /// The data is not what was hashed.
    HashDiffers {
        /// What the bundle says.
        claimed: Hash,
        /// What the data gives.
        computed: Hash,
    },
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.fault)
    }
}

impl fmt::Display for FitFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATree => {
                f.write_str("not a FIT image (no d00dfeed at its start): build one with mkimage -f")
            }
            Self::Truncated { says, has } => {
                write!(f, "truncated: the header says {says} bytes, there are {has}: copy the file again")
            }
            Self::NoNode(name) => {
                write!(f, "{name}: missing node: a FIT image has /images and /configurations")
            }
            Self::NoMachine => f.write_str("empty: each node in it is one VM, add one"),
            Self::Missing { property, wanted } => write!(f, "{property}: missing: give {wanted}"),
            Self::Malformed { property, wanted } => write!(f, "{property}: malformed: give {wanted}"),
            Self::Unsupported { property, value, wanted } => {
                write!(f, "{property}: \"{value}\" is not supported: give {wanted}")
            }
            Self::OwnProperty(property) => write!(
                f,
                "{property}: unknown property: a bundle has none of Trapeze's; \
                 remove it or move it to the VM's tree, the image that fdt names"
            ),
            Self::NotLoaded(property) => {
                write!(f, "{property}: a VM has kernel, fdt and ramdisk only: remove this property")
            }
            Self::NoSuchImage { property, image } => {
                write!(f, "{property}: there is no /images/{image}: name a node of /images")
            }
            Self::SeveralImages(property) => {
                write!(
                    f,
                    "{property}: names several images: name one (apply overlays when building the tree)"
                )
            }
            Self::OutsideFile { property, start, size, file } => write!(
                f,
                "{property}: {size} bytes at {start} are not in the bundle's {file}: \
                 rebuild the bundle or copy it again with what follows its tree"
            ),
            Self::Encrypted => {
                f.write_str("cipher: encrypted images are not supported: store it in the clear")
            }
            Self::HashLength { algo, has, wanted } => {
                write!(f, "value: {algo} has {wanted} bytes, not {has}: rebuild the bundle with mkimage")
            }
            Self::HashDiffers { claimed, computed } => write!(
                f,
                "value: {} is {claimed}, the data says {computed}: rebuild the bundle with mkimage",
                claimed.algorithm()
            ),
        }
    }
}

/// What `algo` would have to say.
pub(super) const ALGO_WANTED: &str = PROVIDED;
