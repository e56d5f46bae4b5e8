//! The boot loader of the board, as far as it can be told what to do otherwise.
//!
//! Not here: finding out that something is wrong.
//! Follows the Raspberry Pi documentation of config.txt (boot options, device tree, UART).

use fdt::Fdt;

use crate::addr::{Pa, Region};
use crate::dtb::node;
use crate::dtb::path::NodePath;

use super::{Console, UartKind};

/// Whose boot loader started the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Firmware {
    /// That of a Raspberry Pi, which reads config.txt.
    RaspberryPi,
    /// Another one.
    Other,
}

/// What is wrong with how the image was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// There is no device tree, or it is not one of this board.
    Tree,
    /// The image was not entered at EL2.
    Level,
    /// There is no bundle, or not all of it.
    Bundle,
    /// There is too little memory.
    Memory,
}

/// QEMU's virt has no RAM below this; a Raspberry Pi is loaded there.
const GIB: u64 = 1 << 30;

/// UARTs of the BCM2711 as its CPUs see them (BCM2711 ARM Peripherals, 1.2.4, 2.1 and 11.5).
const RASPBERRY_PI_4: [Console; 2] =
    [guessed(UartKind::Bcm2835MiniUart, 0xfe21_5040, 0x40), guessed(UartKind::Pl011, 0xfe20_1000, 0x1000)];
/// The UART of QEMU's virt.
const VIRT: [Console; 1] = [guessed(UartKind::Pl011, 0x0900_0000, 0x1000)];

const fn guessed(kind: UartKind, start: u64, size_bytes: u64) -> Console {
    Console { kind, registers: Region { start: Pa::new(start), size_bytes }, interrupt: None }
}

impl Firmware {
    /// Reads whose board a tree is of.
    #[must_use]
    pub fn of(fdt: &Fdt<'_>) -> Self {
        let is_pi = NodePath::root(fdt).is_some_and(|root| {
            node::strings(root.node(), "compatible")
                .into_iter()
                .flatten()
                .any(|name| name.starts_with("raspberrypi,"))
        });
        if is_pi { Self::RaspberryPi } else { Self::Other }
    }

    /// Lists, where there is no tree, whose board it may be and the UARTs that it then has, likeliest first: the one whose
    /// PL011 says that it is one. `image` is where the image was loaded.
    pub fn guesses(image: Pa) -> impl Iterator<Item = (Self, &'static [Console])> {
        let virt = (image.get() >= GIB).then_some((Self::Other, VIRT.as_slice()));
        virt.into_iter().chain([(Self::RaspberryPi, RASPBERRY_PI_4.as_slice())])
    }

    /// Says what would be right, as the end of a sentence; nothing where nobody knows.
    #[must_use]
    pub const fn advice(self, trouble: Trouble) -> &'static str {
        match (self, trouble) {
            (Self::Other, Trouble::Level) => {
                ": give QEMU `-machine virt,virtualization=on` (make run does), or start it from firmware that enters \
                 at EL2"
            }
            (Self::Other, _) => "",
            (Self::RaspberryPi, Trouble::Tree) => {
                "; in config.txt say device_tree=bcm2711-rpi-4-b.dtb, and put that file on the card"
            }
            (Self::RaspberryPi, Trouble::Level) => {
                "; in config.txt say arm_64bit=1 and kernel=kernel8.img, and leave armstub= out"
            }
            (Self::RaspberryPi, Trouble::Bundle) => {
                "; in config.txt say `initramfs bundle.itb followkernel`, without `=`, and copy the file anew"
            }
            (Self::RaspberryPi, Trouble::Memory) => "; in config.txt say nothing of gpu_mem= and total_mem=",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn every_trouble_of_a_pi_names_config_txt() {
        for trouble in [Trouble::Tree, Trouble::Level, Trouble::Bundle, Trouble::Memory] {
            assert!(Firmware::RaspberryPi.advice(trouble).contains("in config.txt say "), "{trouble:?}");
        }
    }

    #[test]
    fn an_image_in_the_first_gib_is_on_a_pi_and_one_above_may_be() {
        let guesses =
            |image| Firmware::guesses(Pa::new(image)).map(|(firmware, _)| firmware).collect::<Vec<_>>();
        assert_eq!(guesses(0x20_0000), [Firmware::RaspberryPi]);
        assert_eq!(guesses(0x4020_0000), [Firmware::Other, Firmware::RaspberryPi]);
    }
}
