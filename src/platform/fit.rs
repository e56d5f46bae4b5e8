//! Reads a bundle: a FIT image in which each configuration is one virtual machine.
//!
//! Not here: what a kernel or a VM's tree means; an image is bytes with a name, checked against its hashes.
//! Follows the Flattened Image Tree specification 0.8 (docs: U-Boot "Flat Image Tree (FIT)").

mod error;
pub(crate) mod hash;
#[cfg(test)]
mod tests;

use crate::addr::Ipa;
use crate::node::{self, Node};
use crate::vm_tree::OWN_PREFIX;
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use fdt::Fdt;

pub use error::{FitError, FitFault};
pub use hash::{Crc32, Hash};

/// First four bytes of a device tree blob, and so of a FIT image.
const FDT_MAGIC: [u8; 4] = [0xd0, 0x0d, 0xfe, 0xed];

/// Length of the header of a device tree blob (Devicetree Specification v0.4, 5.2).
const HEADER_BYTES: u32 = 40;

const IMAGES: &str = "/images";
const CONFIGURATIONS: &str = "/configurations";

/// What follows the tree in a bundle made with `mkimage -E`.
#[derive(Clone, Copy, Debug)]
pub struct External<'a> {
    /// Length of the tree: where `bytes` start in the file.
    tree_bytes: u64,
    bytes: &'a [u8],
}

/// Splits a bundle into its tree, to be opened with the device-tree reader, and what follows it.
///
/// # Errors
/// If the file is no device tree, or shorter than its header says.
#[inline(never)]
pub fn split(bundle: &mut [u8]) -> Result<(&mut [u8], External<'_>), FitError> {
    let fault = |fault| FitError { node: "bundle".to_owned(), fault };
    let has = bundle_bytes(bundle.len());
    let Some((&magic, rest)) = bundle.split_first_chunk::<4>() else { return Err(fault(FitFault::NotATree)) };
    if magic != FDT_MAGIC {
        return Err(fault(FitFault::NotATree));
    }
    let says = rest.first_chunk().map_or(HEADER_BYTES, |bytes| u32::from_be_bytes(*bytes));
    let truncated = fault(FitFault::Truncated { says: u64::from(says), has });
    let Some((tree, after)) = usize::try_from(says).ok().and_then(|says| bundle.split_at_mut_checked(says))
    else {
        return Err(truncated);
    };
    Ok((tree, External { tree_bytes: u64::from(says), bytes: after }))
}

/// A bundle whose two top nodes were found.
pub struct Bundle<'t, 'a> {
    images: Node<'t, 'a>,
    configurations: Node<'t, 'a>,
    external: External<'a>,
    crc32: Crc32,
}

/// How an image is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// As it is.
    None,
    /// RFC 1952.
    Gzip,
}

/// An image of the bundle whose hashes hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageRef<'a> {
    /// Path of its node in the bundle, for errors about its content.
    pub path: String,
    /// What is stored.
    pub bytes: &'a [u8],
    /// How it is stored.
    pub compression: Compression,
    /// Where it asks to be placed.
    pub load: Option<Ipa>,
    /// Where it asks to be started.
    pub entry: Option<Ipa>,
}

/// What one virtual machine is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmImages<'a> {
    /// Name of the configuration, which is the name of the VM.
    pub name: &'a str,
    /// `description` of the configuration.
    pub description: Option<&'a str>,
    /// The kernel.
    pub kernel: ImageRef<'a>,
    /// The device tree blob of the machine, not looked into.
    pub fdt: ImageRef<'a>,
    /// The initial RAM disk.
    pub ramdisk: Option<ImageRef<'a>>,
}

impl<'t, 'a> Bundle<'t, 'a> {
    /// Finds the two halves of a bundle: images and configurations.
    ///
    /// # Errors
    /// If one of them is missing, or if there is no configuration.
    #[inline(never)]
    pub fn open(tree: &'t Fdt<'a>, external: External<'a>) -> Result<Self, FitError> {
        let top = |name: &'static str| {
            node::root(tree)
                .and_then(|root| node::child(root, name))
                .ok_or_else(|| FitError { node: "/".to_owned(), fault: FitFault::NoNode(name) })
        };
        let (images, configurations) = (top("images")?, top("configurations")?);
        if configurations.children().next().is_none() {
            return Err(FitError { node: CONFIGURATIONS.to_owned(), fault: FitFault::NoMachine });
        }
        Ok(Self { images, configurations, external, crc32: hash::crc32 })
    }

    /// Lets `crc32` compute that hash: a CPU may have instructions for it.
    #[must_use]
    pub fn with_crc32(self, crc32: Crc32) -> Self {
        Self { crc32, ..self }
    }

    /// Tells whether there are several virtual machines.
    #[must_use]
    pub fn has_several(&self) -> bool {
        self.configurations.children().nth(1).is_some()
    }

    /// Lists the virtual machines in the order of the file, each with its name.
    ///
    /// A VM's images are checked when its turn comes, so that one damaged image stops no other VM; an image
    /// that several VMs share is checked once.
    #[inline(never)]
    pub fn virtual_machines(&self) -> impl Iterator<Item = (&'a str, Result<VmImages<'a>, FitError>)> {
        let mut verified = Vec::new();
        self.configurations.children().map(move |node| (node.name, self.machine(node, &mut verified)))
    }

    fn machine(&self, node: Node<'t, 'a>, verified: &mut Vec<&'a str>) -> Result<VmImages<'a>, FitError> {
        let place = Place { node, path: node::join(CONFIGURATIONS, node.name) };
        place.refuse_own()?;
        for property in ["loadables", "firmware", "standalone", "fpga", "script"] {
            if node::value(node, property).is_some() {
                return Err(place.fault(FitFault::NotLoaded(property)));
            }
        }
        Ok(VmImages {
            name: node.name,
            description: place.optional_text("description")?,
            kernel: self.required(&place, &KERNEL, verified)?,
            fdt: self.required(&place, &DEVICE_TREE, verified)?,
            ramdisk: self.image(&place, &RAMDISK, verified)?,
        })
    }

    fn required(
        &self,
        place: &Place<'t, 'a>,
        role: &Role,
        verified: &mut Vec<&'a str>,
    ) -> Result<ImageRef<'a>, FitError> {
        let missing = FitFault::Missing { property: role.property, wanted: "the name of a node of /images" };
        self.image(place, role, verified)?.ok_or_else(|| place.fault(missing))
    }

    /// Finds, measures and checks the image that a configuration names for `role`.
    fn image(
        &self,
        place: &Place<'t, 'a>,
        role: &Role,
        verified: &mut Vec<&'a str>,
    ) -> Result<Option<ImageRef<'a>>, FitError> {
        let property = role.property;
        let Some(value) = node::value(place.node, property) else { return Ok(None) };
        let names = node::texts(value).ok_or_else(|| {
            place.fault(FitFault::Malformed { property, wanted: "the name of a node of /images" })
        })?;
        let [name] = names[..] else { return Err(place.fault(FitFault::SeveralImages(property))) };
        let node = node::child(self.images, name)
            .ok_or_else(|| place.fault(FitFault::NoSuchImage { property, image: node::shown(name) }))?;
        let image = Place { node, path: node::join(IMAGES, name) };
        image.refuse_own()?;
        let found = image.read(role, self.external)?;
        if !verified.contains(&name) {
            image.verify(found.bytes, self.crc32)?;
            verified.push(name);
        }
        Ok(Some(found))
    }
}

/// What a configuration can name, and what such an image has to be.
struct Role {
    /// Property of the configuration.
    property: &'static str,
    /// What the image's `type` may say.
    types: &'static [&'static str],
    /// The same in words.
    wanted: &'static str,
    /// What its `compression` means.
    stored: Stored,
}

/// What `compression` means for an image.
#[derive(PartialEq, Eq)]
enum Stored {
    /// It is undone before the image is placed.
    Packed,
    /// It must be "none".
    Plain,
    /// It is the guest's affair: the image is handed over as it is.
    AsIs,
}

const KERNEL: Role = Role {
    property: "kernel",
    types: &["kernel", "kernel_noload", "standalone"],
    wanted: "\"kernel\"",
    stored: Stored::Packed,
};
const DEVICE_TREE: Role =
    Role { property: "fdt", types: &["flat_dt"], wanted: "\"flat_dt\"", stored: Stored::Plain };
const RAMDISK: Role =
    Role { property: "ramdisk", types: &["ramdisk"], wanted: "\"ramdisk\"", stored: Stored::AsIs };

/// A node and its path.
struct Place<'t, 'a> {
    node: Node<'t, 'a>,
    path: String,
}

impl<'t, 'a> Place<'t, 'a> {
    fn fault(&self, fault: FitFault) -> FitError {
        FitError { node: self.path.clone(), fault }
    }

    /// Requires the node to have no property of the hypervisor's own: in a bundle they would say nothing.
    fn refuse_own(&self) -> Result<(), FitError> {
        let own = self.node.properties().find(|property| property.name.starts_with(OWN_PREFIX));
        own.map_or(Ok(()), |own| Err(self.fault(FitFault::OwnProperty(node::shown(own.name)))))
    }

    fn optional_text(&self, property: &'static str) -> Result<Option<&'a str>, FitError> {
        let Some(value) = node::value(self.node, property) else { return Ok(None) };
        let malformed = FitFault::Malformed { property, wanted: "one string" };
        node::text(value).map(Some).ok_or_else(|| self.fault(malformed))
    }

    fn optional_number(&self, property: &'static str) -> Result<Option<u64>, FitError> {
        let Some(value) = node::value(self.node, property) else { return Ok(None) };
        let malformed = FitFault::Malformed { property, wanted: "a number of one or two cells" };
        node::number(value).map(Some).ok_or_else(|| self.fault(malformed))
    }

    /// Requires `property`, where it is given, to say one of `accepted`.
    fn expect(
        &self,
        property: &'static str,
        accepted: &[&str],
        wanted: &'static str,
    ) -> Result<(), FitError> {
        match self.optional_text(property)? {
            Some(value) if !accepted.contains(&value) => {
                Err(self.fault(FitFault::Unsupported { property, value: node::shown(value), wanted }))
            }
            _ => Ok(()),
        }
    }

    /// Reads the properties of an image node.
    fn read(&self, role: &Role, external: External<'a>) -> Result<ImageRef<'a>, FitError> {
        self.expect("type", role.types, role.wanted)?;
        self.expect("arch", &["arm64"], "\"arm64\"")?;
        let compression = match role.stored {
            Stored::AsIs => Compression::None,
            Stored::Plain => {
                self.expect("compression", &["none"], "\"none\"")?;
                Compression::None
            }
            Stored::Packed => {
                self.expect("compression", &["none", "gzip"], "\"gzip\" or \"none\"")?;
                let gzip = self.optional_text("compression")? == Some("gzip");
                if gzip { Compression::Gzip } else { Compression::None }
            }
        };
        if node::child(self.node, "cipher").is_some() {
            return Err(self.fault(FitFault::Encrypted));
        }
        Ok(ImageRef {
            path: self.path.clone(),
            bytes: self.stored_bytes(external)?,
            compression,
            load: self.optional_number("load")?.map(Ipa::new),
            entry: self.optional_number("entry")?.map(Ipa::new),
        })
    }

    /// Finds the image's bytes: in the tree (`data`), or after it (`data-offset`, `data-position`).
    fn stored_bytes(&self, external: External<'a>) -> Result<&'a [u8], FitError> {
        if let Some(bytes) = node::value(self.node, "data") {
            return Ok(bytes);
        }
        let position = self.optional_number("data-position")?;
        let offset = self.optional_number("data-offset")?;
        let (property, start) = match (position, offset) {
            (Some(position), _) => ("data-position", position),
            (None, Some(offset)) => {
                ("data-offset", external.tree_bytes.next_multiple_of(4).saturating_add(offset))
            }
            (None, None) => {
                let wanted = "the image itself, with /incbin/(\"file\") in the .its";
                return Err(self.fault(FitFault::Missing { property: "data", wanted }));
            }
        };
        let wanted = "the length of the data in bytes (mkimage -E writes it)";
        let size = self
            .optional_number("data-size")?
            .ok_or_else(|| self.fault(FitFault::Missing { property: "data-size", wanted }))?;
        external.get(start, size).ok_or_else(|| {
            let file = external.tree_bytes.saturating_add(bundle_bytes(external.bytes.len()));
            self.fault(FitFault::OutsideFile { property, start, size, file })
        })
    }

    /// Checks each hash of an image against its bytes.
    fn verify(&self, bytes: &[u8], crc32: Crc32) -> Result<(), FitError> {
        for node in self.node.children().filter(|child| child.name.starts_with("hash")) {
            let hash = Place { node, path: node::join(&self.path, node.name) };
            let claimed = hash.claimed_hash()?;
            let computed = claimed.same_over(bytes, crc32);
            if computed != claimed {
                return Err(hash.fault(FitFault::HashDiffers { claimed, computed }));
            }
        }
        Ok(())
    }

    /// Reads a hash node.
    fn claimed_hash(&self) -> Result<Hash, FitError> {
        let algo = self
            .optional_text("algo")?
            .ok_or_else(|| self.fault(FitFault::Missing { property: "algo", wanted: error::ALGO_WANTED }))?;
        let wanted = error::ALGO_WANTED;
        let length = Hash::length_bytes(algo).ok_or_else(|| {
            self.fault(FitFault::Unsupported { property: "algo", value: node::shown(algo), wanted })
        })?;
        let value = node::value(self.node, "value").ok_or_else(|| {
            self.fault(FitFault::Missing {
                property: "value",
                wanted: "it by building the bundle with mkimage",
            })
        })?;
        Hash::claimed(algo, value).ok_or_else(|| {
            self.fault(FitFault::HashLength { algo: algo.to_owned(), has: value.len(), wanted: length })
        })
    }
}

impl<'a> External<'a> {
    /// Returns `size` bytes from `start` on, counted from the start of the file.
    fn get(self, start: u64, size: u64) -> Option<&'a [u8]> {
        let from = usize::try_from(start.checked_sub(self.tree_bytes)?).ok()?;
        let to = from.checked_add(usize::try_from(size).ok()?)?;
        self.bytes.get(from..to)
    }
}

/// Widens a length; it always fits.
fn bundle_bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
