//! Guests of a few instructions, put together here: raw binaries for RAM base + 0x80000.
//!
//! Follows Arm ARM DDI 0487K.a, C6.2.

/// A program: AArch64 instructions, from its first byte on.
#[derive(Clone, Default)]
pub struct Code(Vec<u32>);

/// PSCI function identifiers (Arm DEN 0022F, 5.2).
pub const SYSTEM_OFF: u32 = 0x8400_0008;
/// PSCI SYSTEM_RESET.
pub const SYSTEM_RESET: u32 = 0x8400_0009;
/// PSCI CPU_OFF.
pub const CPU_OFF: u32 = 0x8400_0002;

/// By which instruction PSCI is called.
#[derive(Clone, Copy)]
pub enum Conduit {
    /// HVC #0.
    Hvc,
    /// SMC #0.
    Smc,
}

const PL011: u32 = 0x0900_0000;

impl Code {
    /// Starts a program.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an instruction as it is.
    pub fn word(mut self, word: u32) -> Self {
        self.0.push(word);
        self
    }

    /// `X<register> = value`.
    pub fn set(self, register: u32, value: u32) -> Self {
        self.word(0xd280_0000 | (value & 0xffff) << 5 | register) // MOVZ
            .word(0xf2a0_0000 | value >> 16 << 5 | register) // MOVK, LSL #16
    }

    /// Prints `text` on the PL011. Changes X1 and X2.
    pub fn print(self, text: &str) -> Self {
        text.bytes().fold(self.set(1, PL011), |code, byte| {
            code.set(2, u32::from(byte)).word(0xb900_0022) // STR W2, [X1]
        })
    }

    /// `W<to> = the word at X<from>`.
    pub fn load(self, to: u32, from: u32) -> Self {
        self.word(0xb940_0000 | from << 5 | to)
    }

    /// `the word at X<to> = W<from>`.
    pub fn store(self, from: u32, to: u32) -> Self {
        self.word(0xb900_0000 | to << 5 | from)
    }

    /// `X<register> = address of this instruction`.
    pub fn here(self, register: u32) -> Self {
        self.word(0x1000_0000 | register) // ADR
    }

    /// Runs `body` unless `W<register>` is `value`. Changes X3.
    pub fn unless(self, register: u32, value: u32, body: impl FnOnce(Self) -> Self) -> Self {
        let mut code = self.set(3, value).word(0x6b03_001f | register << 5);
        let branch = code.0.len();
        code = body(code.word(0));
        let distance = u32::try_from(code.0.len() - branch).expect("a short program");
        code.0[branch] = 0x5400_0000 | distance << 5; // B.EQ
        code
    }

    /// Calls PSCI without arguments.
    pub fn call(self, function: u32, conduit: Conduit) -> Self {
        self.set(0, function).word(match conduit {
            Conduit::Hvc => 0xd400_0002,
            Conduit::Smc => 0xd400_0003,
        })
    }

    /// Powers off by HVC; should that return, stays where it is.
    pub fn power_off(self) -> Self {
        self.call(SYSTEM_OFF, Conduit::Hvc).word(0x1400_0000) // B .
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}
