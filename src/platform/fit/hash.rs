//! The hashes that protect an image in a bundle.
//!
//! Not here: signatures. A hash finds damage, it does not say who built the bundle.
//! Follows the FIT specification, "hash-1" nodes: the value is stored as bytes, crc32 big-endian.

use core::fmt;
use crc::{CRC_32_ISO_HDLC, Crc, Table};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// CRC-32 as zlib, gzip and mkimage have it; one table (1 KiB), since most CPUs have instructions for it.
pub(crate) static CRC32: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

/// Computes the CRC-32 of all bytes, as zlib does.
pub type Crc32 = fn(&[u8]) -> u32;

/// Computes it on any CPU.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    CRC32.checksum(bytes)
}

/// What `algo` of a hash node can say here.
pub(crate) const PROVIDED: &str = "crc32, sha1 or sha256";

/// The result of a hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hash {
    /// `algo = "crc32"`.
    Crc32([u8; 4]),
    /// `algo = "sha1"`.
    Sha1([u8; 20]),
    /// `algo = "sha256"`.
    Sha256([u8; 32]),
}

impl Hash {
    /// Returns the length in bytes of the values of `algo`; `None` for an algorithm not provided.
    pub(crate) fn length_bytes(algo: &str) -> Option<usize> {
        match algo {
            "crc32" => Some(4),
            "sha1" => Some(20),
            "sha256" => Some(32),
            _ => None,
        }
    }

    /// Takes the value of a hash node; `None` if algorithm or length are wrong.
    pub(crate) fn claimed(algo: &str, value: &[u8]) -> Option<Self> {
        match algo {
            "crc32" => Some(Self::Crc32(value.try_into().ok()?)),
            "sha1" => Some(Self::Sha1(value.try_into().ok()?)),
            "sha256" => Some(Self::Sha256(value.try_into().ok()?)),
            _ => None,
        }
    }

    /// Computes the hash of `bytes` with the algorithm of `self`.
    pub(crate) fn same_over(&self, bytes: &[u8], crc32: Crc32) -> Self {
        match self {
            Self::Crc32(_) => Self::Crc32(crc32(bytes).to_be_bytes()),
            Self::Sha1(_) => Self::Sha1(Sha1::digest(bytes).into()),
            Self::Sha256(_) => Self::Sha256(Sha256::digest(bytes).into()),
        }
    }

    /// Returns the algorithm's name as bundles spell it.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Crc32(_) => "crc32",
            Self::Sha1(_) => "sha1",
            Self::Sha256(_) => "sha256",
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            Self::Crc32(bytes) => bytes,
            Self::Sha1(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        };
        f.write_str("0x")?;
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn hashes_match_the_published_vectors() {
        let rows = [
            ("crc32", 4, "0xcbf43926"),
            ("sha1", 20, "0xf7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            ("sha256", 32, "0x15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
        ];
        for (algo, length, wanted) in rows {
            assert_eq!(Hash::length_bytes(algo), Some(length));
            let computed = Hash::claimed(algo, &[0; 32][..length]).unwrap().same_over(b"123456789", crc32);
            assert_eq!(computed.to_string(), wanted);
            assert_eq!(computed.algorithm(), algo);
        }
    }

    #[test]
    fn an_unknown_algorithm_or_length_is_no_hash() {
        assert_eq!(Hash::length_bytes("md5"), None);
        assert_eq!(Hash::claimed("md5", &[0; 16]), None);
        assert_eq!(Hash::claimed("crc32", &[0; 5]), None);
    }
}
