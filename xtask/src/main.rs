//! The Tidegate operator.
fn main() {}
