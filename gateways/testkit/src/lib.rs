//! Fakes and compliance checks that every protocol crate runs.
