//! Keeps the rights in Kafka as they shall be, sweep by sweep. Does network IO, over a connection that it keeps.

use super::acl::Acl;
use super::plan::{Plan, plan};
use crate::kafka::access::Access;
use crate::kafka::error::Failure;
use crate::kafka::wire::{self, Connection, WireError, acls};
use std::collections::BTreeSet;

/// How rights are spoken of where they cannot be kept.
const WHAT: &str = "keep the rights in Kafka";

/// What one look brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Kafka has what it shall, and nothing else.
    Whole,
    /// It had not, and this was done about it; the next look tells whether it has now.
    Changed(Plan),
    /// It has not, and nothing may be written.
    Differs,
}

/// The connection on which rights are looked at.
#[derive(Default)]
pub struct Keeper(Option<Connection>);

impl Keeper {
    /// Looks once, and brings Kafka to what it shall have where that `may_write`.
    pub async fn look(
        &mut self,
        access: &Access,
        want: &BTreeSet<Acl>,
        may_write: bool,
    ) -> Result<Look, Failure> {
        let kept = self.0.is_some();
        match self.once(access, want, may_write).await {
            // A broker that restarted since the last look.
            Err(error) if kept && is_broken(&error) => self.once(access, want, may_write).await,
            other => other,
        }
        .map_err(|error| error.failure(WHAT))
    }

    async fn once(
        &mut self,
        access: &Access,
        want: &BTreeSet<Acl>,
        may_write: bool,
    ) -> Result<Look, WireError> {
        let mut connection = match self.0.take() {
            Some(connection) => connection,
            None => wire::connect(access).await?,
        };
        let have = acls::describe(&mut connection).await?;
        let todo = plan(want, &have);
        let look = if todo.is_empty() {
            Look::Whole
        } else if may_write {
            // Nothing is taken away before everything that shall be is there.
            acls::create(&mut connection, &todo.create).await?;
            acls::delete(&mut connection, &todo.delete).await?;
            Look::Changed(todo)
        } else {
            Look::Differs
        };
        self.0 = Some(connection);
        Ok(look)
    }
}

fn is_broken(error: &WireError) -> bool {
    matches!(error, WireError::Broken { .. } | WireError::Timeout { .. })
}
