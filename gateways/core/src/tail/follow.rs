//! The thread that follows the ends of partitions. IO: blocks on the reader.

use super::Shared;
use super::control::Command;
use crate::reader::{Event, ReadError, Reader};
use std::sync::Arc;
use std::time::Duration;

/// How often the thread looks whether it is to end; records come at once.
const POLL: Duration = Duration::from_millis(200);

pub(super) fn spawn(shared: Arc<Shared>, reader: Arc<dyn Reader>) -> Result<(), ReadError> {
    std::thread::Builder::new()
        .name("tail".to_owned())
        .spawn(move || {
            while !shared.closed.is_cancelled() {
                match reader.poll(POLL) {
                    Some(Event::Record(record)) => shared.state.follow(&record),
                    // full: a look at all positions is asked for already, or will be when the next one fails
                    Some(Event::OutOfRange) => drop(shared.commands.try_send(Command::Recover)),
                    Some(Event::Error(error)) => {
                        tracing::debug!(error, "the tail's reader reported an error");
                    }
                    Some(Event::End) | None => {}
                }
            }
        })
        .map(drop)
        .map_err(|error| ReadError::Client(error.to_string()))
}
