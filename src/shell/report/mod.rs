//! Reports: what the monitor knows, as tables.
