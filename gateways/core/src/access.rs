//! Who may do what. Everybody may do everything for now: this is the one seam where permissions attach. No IO.

use std::fmt;
use std::sync::Arc;
use tidegate_contract::{Address, Filter, header};

/// Who is connected: `fleet/device`, or `anonymous`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// A device that did not say who it is.
    pub fn anonymous() -> Self {
        Self(header::ANONYMOUS.into())
    }

    /// The text, as in the header `tg-device`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a principal wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a record.
    Publish,
    /// Ask for records, by filter or by address.
    Subscribe,
    /// Be given one record that a subscription matched.
    Receive,
}

/// What the action is about.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// One address.
    Address(&'a Address),
    /// Every address that a filter matches.
    Filter(&'a Filter),
}

impl<'a> From<&'a Address> for Target<'a> {
    fn from(address: &'a Address) -> Self {
        Self::Address(address)
    }
}

impl<'a> From<&'a Filter> for Target<'a> {
    fn from(filter: &'a Filter) -> Self {
        Self::Filter(filter)
    }
}

/// The answer no: permanent, the device must not try again (MQTT 5 0x87, HTTP 403).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device has no right to do this")]
pub struct Denied;

/// Decides about every action; asked before routing.
#[derive(Clone, Debug, Default)]
pub struct Access {
    _private: (),
}

impl Access {
    /// Access for everybody: nothing is enforced before fleets are.
    pub fn open() -> Self {
        Self::default()
    }

    /// Whether `principal` may do it.
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)] // the seam: fleets' permissions attach here
    pub fn check<'a>(
        &self,
        _principal: &Principal,
        _action: Action,
        _target: impl Into<Target<'a>>,
    ) -> Result<(), Denied> {
        Ok(())
    }
}
