//! Pure models of the devices that a guest sees: registers in, registers and effects out.
//!
//! Not here: clocks, locks, callbacks and hardware. Time is an argument.

pub mod pl011;
pub mod ptimer;
pub mod stolen_time;
pub mod vgic;

/// Size of one access to a device register, as the load or store instruction has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
    /// 64 bits.
    Double,
}

impl Width {
    /// Returns the number of bytes accessed.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }

    /// Returns the bits of a 64-bit value that the access carries.
    #[must_use]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}
