//! The image: boot order on one screen.
fn main() {}
