//! What a vCPU has in system registers: the one table of what a world switch saves and loads.
//!
//! Not here: general-purpose registers (every exit saves them), the GIC's CPU interface, which the vGIC knows about,
//! registers that trap or are hidden, and what only EL2 can set.
//! Follows Arm ARM DDI 0487K.a, D24 (names and encodings) and D1.5.4 (what a warm reset leaves).
//!
//! A row is a field, the register's name, and its op0, op1, CRn, CRm and op2. A register is named in an instruction, so
//! that code is made of the rows by a macro: `el1_registers!(callback)` calls `callback!` with all of them.

/// Where a register is in the instruction set: the operands of MRS and MSR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoding {
    /// Its name in the Arm ARM.
    pub name: &'static str,
    /// Op0, op1, CRn, CRm, op2.
    pub operands: [u8; 5],
}

/// Registers that every vCPU has.
#[macro_export]
macro_rules! el1_registers {
    ($with:ident) => {
        $with! {
            El1, "The registers of EL1 and EL0 that every CPU has.":
            sp_el0 "SP_EL0" 3 0 4 1 0;
            sp_el1 "SP_EL1" 3 4 4 1 0;
            elr_el1 "ELR_EL1" 3 0 4 0 1;
            spsr_el1 "SPSR_EL1" 3 0 4 0 0;
            esr_el1 "ESR_EL1" 3 0 5 2 0;
            far_el1 "FAR_EL1" 3 0 6 0 0;
            afsr0_el1 "AFSR0_EL1" 3 0 5 1 0;
            afsr1_el1 "AFSR1_EL1" 3 0 5 1 1;
            vbar_el1 "VBAR_EL1" 3 0 12 0 0;
            cpacr_el1 "CPACR_EL1" 3 0 1 0 2;
            ttbr0_el1 "TTBR0_EL1" 3 0 2 0 0;
            ttbr1_el1 "TTBR1_EL1" 3 0 2 0 1;
            mair_el1 "MAIR_EL1" 3 0 10 2 0;
            amair_el1 "AMAIR_EL1" 3 0 10 3 0;
            contextidr_el1 "CONTEXTIDR_EL1" 3 0 13 0 1;
            tpidr_el1 "TPIDR_EL1" 3 0 13 0 4;
            tpidr_el0 "TPIDR_EL0" 3 3 13 0 2;
            tpidrro_el0 "TPIDRRO_EL0" 3 3 13 0 3;
            par_el1 "PAR_EL1" 3 0 7 4 0;
            csselr_el1 "CSSELR_EL1" 3 2 0 0 0;
            cntkctl_el1 "CNTKCTL_EL1" 3 0 14 1 0;
            cntv_cval_el0 "CNTV_CVAL_EL0" 3 3 14 3 2;
        }
    };
}

/// Registers that open EL1: while they change hands no walk may start, so they are loaded last and in this order.
#[macro_export]
macro_rules! opening_registers {
    ($with:ident) => {
        $with! {
            Opening, "What opens EL1: its MMU, its walks, and the timer that counts by itself.":
            sctlr_el1 "SCTLR_EL1" 3 0 1 0 0;
            tcr_el1 "TCR_EL1" 3 0 2 0 2;
            cntv_ctl_el0 "CNTV_CTL_EL0" 3 3 14 3 1;
        }
    };
}

/// Registers of FEAT_PAuth.
#[macro_export]
macro_rules! key_registers {
    ($with:ident) => {
        $with! {
            Keys, "The keys of pointer authentication (FEAT_PAuth).":
            apia_low "APIAKeyLo_EL1" 3 0 2 1 0;
            apia_high "APIAKeyHi_EL1" 3 0 2 1 1;
            apib_low "APIBKeyLo_EL1" 3 0 2 1 2;
            apib_high "APIBKeyHi_EL1" 3 0 2 1 3;
            apda_low "APDAKeyLo_EL1" 3 0 2 2 0;
            apda_high "APDAKeyHi_EL1" 3 0 2 2 1;
            apdb_low "APDBKeyLo_EL1" 3 0 2 2 2;
            apdb_high "APDBKeyHi_EL1" 3 0 2 2 3;
            apga_low "APGAKeyLo_EL1" 3 0 2 3 0;
            apga_high "APGAKeyHi_EL1" 3 0 2 3 1;
        }
    };
}

/// Registers of a vCPU that was granted the debug registers, but for the breakpoints and watchpoints, of which CPUs have
/// different numbers: `DBGBVR<n>_EL1` 2 0 0 n 4, `DBGBCR<n>_EL1` 2 0 0 n 5, `DBGWVR<n>_EL1` 2 0 0 n 6, `DBGWCR<n>_EL1` 2 0
/// 0 n 7; and the OS lock, which is read as OSLSR_EL1 and written as OSLAR_EL1, and the claim tags, likewise. Not
/// DBGPRCR_EL1, a request to the machine's power controller that any debugger may make; there are CPUs without it.
#[macro_export]
macro_rules! debug_registers {
    ($with:ident) => {
        $with! {
            Debug, "Self-hosted debug, as far as every CPU has it.":
            mdscr_el1 "MDSCR_EL1" 2 0 0 2 2;
            mdccint_el1 "MDCCINT_EL1" 2 0 0 2 0;
            osdtrrx_el1 "OSDTRRX_EL1" 2 0 0 0 2;
            osdtrtx_el1 "OSDTRTX_EL1" 2 0 0 3 2;
            oseccr_el1 "OSECCR_EL1" 2 0 0 6 2;
            osdlr_el1 "OSDLR_EL1" 2 0 1 3 4;
        }
    };
}

/// Registers of a vCPU that was granted the performance monitors, but for the event counters, `PMEVCNTR<n>_EL0` and
/// `PMEVTYPER<n>_EL0`, which go by PMSELR_EL0, and those that are read and written by pairs that set and clear.
#[macro_export]
macro_rules! monitor_registers {
    ($with:ident) => {
        $with! {
            Monitors, "The performance monitors, as far as every CPU with them has it.":
            pmcr_el0 "PMCR_EL0" 3 3 9 12 0;
            pmselr_el0 "PMSELR_EL0" 3 3 9 12 5;
            pmuserenr_el0 "PMUSERENR_EL0" 3 3 9 14 0;
            pmccntr_el0 "PMCCNTR_EL0" 3 3 9 13 0;
            pmccfiltr_el0 "PMCCFILTR_EL0" 3 3 14 15 7;
        }
    };
}

macro_rules! plain_data {
    ($name:ident, $what:literal: $($field:ident $register:literal $op0:literal $op1:literal $crn:literal $crm:literal $op2:literal;)*) => {
        #[doc = $what]
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct $name {
            $(#[doc = $register] pub $field: u64,)*
        }

        impl $name {
            /// Its registers, in the order in which they are loaded.
            pub const TABLE: &'static [Encoding] =
                &[$(Encoding { name: $register, operands: [$op0, $op1, $crn, $crm, $op2] },)*];
        }
    };
}

el1_registers!(plain_data);
opening_registers!(plain_data);
key_registers!(plain_data);
debug_registers!(plain_data);
monitor_registers!(plain_data);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_register_is_in_the_table_twice() {
        let all = [El1::TABLE, Opening::TABLE, Keys::TABLE, Debug::TABLE, Monitors::TABLE].concat();
        let encodings: BTreeSet<_> = all.iter().map(|row| row.operands).collect();
        let names: BTreeSet<_> = all.iter().map(|row| row.name).collect();
        assert_eq!((encodings.len(), names.len()), (all.len(), all.len()));
    }

    #[test]
    fn operands_fit_their_fields() {
        for row in [El1::TABLE, Opening::TABLE, Keys::TABLE, Debug::TABLE, Monitors::TABLE].concat() {
            let [op0, op1, crn, crm, op2] = row.operands;
            assert!((2..4).contains(&op0) && op1 < 8 && crn < 16 && crm < 16 && op2 < 8, "{}", row.name);
        }
    }
}
