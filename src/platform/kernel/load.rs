//! Carries a plan out: copies kernel, RAM disk and device tree into guest RAM.
//!
//! Not here: guest RAM. The machine implements [`GuestRam`]; tests use a list of bytes.

use super::{KernelError, KernelFault, Plan, Segment, Source};
use crate::addr::Ipa;
use alloc::borrow::ToOwned;

/// An address that is not in the VM's RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutsideRam(pub Ipa);

/// The RAM of a VM that is being loaded.
///
/// What is written here is executed later: the implementer cleans it to the point of coherency.
pub trait GuestRam {
    /// Copies `bytes` to `start` and the following addresses.
    ///
    /// # Errors
    /// If one of the addresses is not RAM; what is before it may be written.
    fn write(&mut self, start: Ipa, bytes: &[u8]) -> Result<(), OutsideRam>;

    /// Sets `bytes` bytes from `start` on to zero; nothing needs to be done for RAM known to be zero.
    ///
    /// # Errors
    /// If one of the addresses is not RAM; what is before it may be written.
    fn zero(&mut self, start: Ipa, bytes: u64) -> Result<(), OutsideRam>;
}

impl Plan<'_> {
    /// Fills guest RAM: the kernel, the RAM disk, and `dtb` where the plan has room for it.
    ///
    /// A compressed kernel is inflated straight into guest RAM, 32 KiB at a time.
    ///
    /// # Errors
    /// If the compressed kernel is damaged, if `dtb` is longer than planned, or if `ram` is not what was planned
    /// for. Guest RAM is then partly written, and the VM must not start.
    pub fn load(&self, dtb: &[u8], ram: &mut impl GuestRam) -> Result<(), KernelError> {
        let kernel = |fault| KernelError { node: self.kernel_path.clone(), fault };
        self.load_kernel(ram).map_err(kernel)?;
        if let Some(initrd) = self.initrd {
            ram.write(initrd.start, self.ramdisk).map_err(KernelFault::from).map_err(kernel)?;
        }
        let bytes = super::length(dtb);
        if bytes > self.dtb.size_bytes {
            let fault = KernelFault::NoRoom { what: "device tree", bytes, ram: self.dtb };
            return Err(KernelError { node: "/memory".to_owned(), fault });
        }
        ram.write(self.dtb.start, dtb).map_err(KernelFault::from).map_err(kernel)
    }

    fn load_kernel(&self, ram: &mut impl GuestRam) -> Result<(), KernelFault> {
        match self.source {
            Source::Plain(file) => self.write_piece(ram, 0, file)?,
            Source::Gzip(gzip) => {
                let mut inflater = gzip.pieces();
                let mut offset = 0_u64;
                while let Some(piece) = inflater.next_piece()? {
                    self.write_piece(ram, offset, piece)?;
                    offset = offset.saturating_add(super::length(piece));
                }
            }
        }
        for segment in &self.segments {
            let empty = segment.memory.size_bytes.saturating_sub(segment.file_bytes);
            if empty != 0 {
                let start = segment.memory.start.get().saturating_add(segment.file_bytes);
                ram.zero(Ipa::new(start), empty)?;
            }
        }
        Ok(())
    }

    /// Copies what the segments want of a piece that is `offset` bytes into the file.
    fn write_piece(&self, ram: &mut impl GuestRam, offset: u64, piece: &[u8]) -> Result<(), OutsideRam> {
        for segment in &self.segments {
            if let Some((start, bytes)) = segment.share_of(offset, piece) {
                ram.write(start, bytes)?;
            }
        }
        Ok(())
    }
}

impl Segment {
    /// Returns the part of a piece of the file that belongs to this segment, and where it goes.
    fn share_of<'p>(&self, offset: u64, piece: &'p [u8]) -> Option<(Ipa, &'p [u8])> {
        let piece_end = offset.checked_add(super::length(piece))?;
        let from = self.file_offset.max(offset);
        let to = self.file_offset.checked_add(self.file_bytes)?.min(piece_end);
        let in_piece = |at: u64| usize::try_from(at.checked_sub(offset)?).ok();
        let bytes = piece.get(in_piece(from)?..in_piece(to)?).filter(|bytes| !bytes.is_empty())?;
        Some((self.memory.start.checked_add(from.checked_sub(self.file_offset)?)?, bytes))
    }
}

impl From<OutsideRam> for KernelFault {
    fn from(OutsideRam(start): OutsideRam) -> Self {
        Self::OutsideRam { start, bytes: 1 }
    }
}
