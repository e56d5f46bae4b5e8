//! Takes a gzip file apart and inflates it piece by piece.
//!
//! Not here: where the pieces go. A piece is a window of 32 KiB, so the heap never holds a whole kernel.
//! Follows RFC 1952 (gzip); the deflate stream itself (RFC 1951) is the `miniz_oxide` crate's.

use crate::fit::hash::CRC32;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use crc::{Digest, Table};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// First two bytes of a gzip file (RFC 1952, 2.3.1: ID1, ID2).
pub(super) const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The farthest that deflate looks back, and so the smallest window to inflate through.
const WINDOW_BYTES: usize = 32 * 1024;

const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED_FLAGS: u8 = 0b1110_0000;
const CM_DEFLATE: u8 = 8;

/// What is wrong with a gzip file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GzipFault {
    /// It does not start as one.
    NotGzip,
    /// Its header cannot be read.
    Header,
    /// It ends in the middle.
    Truncated,
    /// The deflate stream makes no sense.
    Corrupt,
    /// Bytes follow the end of the stream.
    Trailing,
    /// It holds another number of bytes than it says.
    Length {
        /// Number that it says.
        says: u32,
    },
    /// Its CRC-32 is another one than it says.
    Checksum {
        /// CRC-32 that it says.
        says: u32,
        /// CRC-32 of what it holds.
        has: u32,
    },
}

impl fmt::Display for GzipFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGzip => {
                f.write_str("not a gzip file: compress it with gzip or say compression = \"none\"")
            }
            Self::Header => f.write_str("gzip header cannot be read: compress it again"),
            Self::Truncated => f.write_str("gzip file is truncated: compress it again"),
            Self::Corrupt => f.write_str("gzip file is corrupt: compress it again"),
            Self::Trailing => {
                f.write_str("bytes follow the end of the gzip file: compress it again as one stream")
            }
            Self::Length { says } => {
                write!(f, "gzip file does not hold the {says} bytes it says: compress it again")
            }
            Self::Checksum { says, has } => {
                write!(f, "gzip crc32 is {says:#010x}, the data says {has:#010x}: compress it again")
            }
        }
    }
}

/// A gzip file whose frame was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gzip<'a> {
    /// The deflate stream and the trailer.
    stream: &'a [u8],
    /// CRC-32 of the content.
    crc32: u32,
    /// Length of the content in bytes, modulo 2^32.
    size_bytes: u32,
}

impl<'a> Gzip<'a> {
    /// Reads header and trailer of a file of one member.
    pub(super) fn open(file: &'a [u8]) -> Result<Self, GzipFault> {
        if !file.starts_with(&MAGIC) {
            return Err(GzipFault::NotGzip);
        }
        let stream = after_header(file).ok_or(GzipFault::Header)?;
        let (_, trailer) = stream.split_last_chunk::<8>().ok_or(GzipFault::Truncated)?;
        let [c0, c1, c2, c3, s0, s1, s2, s3] = *trailer;
        let (crc32, size_bytes) =
            (u32::from_le_bytes([c0, c1, c2, c3]), u32::from_le_bytes([s0, s1, s2, s3]));
        Ok(Self { stream, crc32, size_bytes })
    }

    /// Returns the length of the content in bytes, as the file says it.
    pub(super) fn size_bytes(&self) -> u64 {
        u64::from(self.size_bytes)
    }

    /// Returns the first bytes of the content, a window at most.
    pub(super) fn head(&self) -> Result<Vec<u8>, GzipFault> {
        let mut inflater = Inflater::new(*self);
        Ok(inflater.next_piece()?.map_or_else(Vec::new, <[u8]>::to_vec))
    }

    /// Starts to inflate.
    pub(super) fn pieces(&self) -> Inflater<'a> {
        Inflater::new(*self)
    }
}

/// Skips the header with its optional fields (RFC 1952, 2.3).
fn after_header(file: &[u8]) -> Option<&[u8]> {
    let ([_, _, method, flags, ..], mut rest) = file.split_first_chunk::<10>()?;
    if *method != CM_DEFLATE || flags & RESERVED_FLAGS != 0 {
        return None;
    }
    if flags & FEXTRA != 0 {
        let (length, after) = rest.split_first_chunk::<2>()?;
        rest = after.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    for field in [FNAME, FCOMMENT] {
        if flags & field != 0 {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest = rest.get(end.checked_add(1)?..)?;
        }
    }
    if flags & FHCRC != 0 { rest.get(2..) } else { Some(rest) }
}

/// Inflates a file piece by piece and checks it at the end.
pub(super) struct Inflater<'a> {
    file: Gzip<'a>,
    /// Input not yet used.
    rest: &'a [u8],
    state: Box<DecompressorOxide>,
    window: Vec<u8>,
    /// Where in the window the next piece goes.
    at: usize,
    /// Bytes inflated so far.
    total: u64,
    crc: Digest<'static, u32, Table<1>>,
    is_done: bool,
}

impl<'a> Inflater<'a> {
    fn new(file: Gzip<'a>) -> Self {
        Self {
            file,
            rest: file.stream,
            state: Box::default(),
            window: vec![0; WINDOW_BYTES],
            at: 0,
            total: 0,
            crc: CRC32.digest(),
            is_done: false,
        }
    }

    /// Inflates the next piece; `None` once the file was found to be whole.
    pub(super) fn next_piece(&mut self) -> Result<Option<&[u8]>, GzipFault> {
        if self.is_done {
            return Ok(None);
        }
        let start = self.at % WINDOW_BYTES;
        let (status, used, made) = decompress(&mut self.state, self.rest, &mut self.window, start, 0);
        match status {
            TINFLStatus::Done => self.is_done = true,
            TINFLStatus::HasMoreOutput if made > 0 => {}
            TINFLStatus::FailedCannotMakeProgress => return Err(GzipFault::Truncated),
            _ => return Err(GzipFault::Corrupt),
        }
        self.rest = self.rest.get(used..).unwrap_or_default();
        self.at = start.saturating_add(made);
        self.total = self.total.saturating_add(u64::try_from(made).unwrap_or(u64::MAX));
        if self.total > self.file.size_bytes() {
            return Err(GzipFault::Length { says: self.file.size_bytes });
        }
        let piece = self.window.get(start..self.at).unwrap_or_default();
        self.crc.update(piece);
        if self.is_done {
            self.check_end()?;
        }
        Ok(Some(piece))
    }

    /// Compares what was inflated with the trailer.
    fn check_end(&self) -> Result<(), GzipFault> {
        let has = self.crc.clone().finalize();
        match self.rest.len() {
            8 if self.total != self.file.size_bytes() => {
                Err(GzipFault::Length { says: self.file.size_bytes })
            }
            8 if has != self.file.crc32 => Err(GzipFault::Checksum { says: self.file.crc32, has }),
            8 => Ok(()),
            0..8 => Err(GzipFault::Truncated),
            _ => Err(GzipFault::Trailing),
        }
    }
}
