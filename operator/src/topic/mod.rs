//! Topics: which filters each has, what Kafka should hold for it, and how it is.

pub mod controller;
pub mod decide;
pub mod effective;
pub mod judge;
#[cfg(test)]
mod tests;

pub use controller::TopicController;
