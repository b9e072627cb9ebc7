//! One ACL as Kafka has it. Pure.

use std::fmt;

/// What an ACL is about; Kafka's numbers, so that those that this version does not know can be removed too.
pub mod kind {
    /// A topic.
    pub const TOPIC: i8 = 2;
    /// A consumer group.
    pub const GROUP: i8 = 3;
    /// The cluster.
    pub const CLUSTER: i8 = 4;
    /// A transactional id.
    pub const TRANSACTIONAL_ID: i8 = 5;
}

/// How an ACL's name is meant.
pub mod pattern {
    /// That name, or all where it is `*`.
    pub const LITERAL: i8 = 3;
    /// All names that begin so.
    pub const PREFIXED: i8 = 4;
}

/// What is allowed or denied.
pub mod operation {
    /// Everything.
    pub const ALL: i8 = 2;
    /// Reading records; committing and joining, of a group. Brings [`DESCRIBE`].
    pub const READ: i8 = 3;
    /// Writing records. Brings [`DESCRIBE`].
    pub const WRITE: i8 = 4;
    /// Seeing that it exists, and how big it is.
    pub const DESCRIBE: i8 = 8;
}

/// Whether it is allowed.
pub mod permission {
    /// It is not, whatever else is.
    pub const DENY: i8 = 2;
    /// It is.
    pub const ALLOW: i8 = 3;
}

/// What an ACL is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// One of [`kind`].
    pub kind: i8,
    /// One of [`pattern`].
    pub pattern: i8,
    /// Its name.
    pub name: String,
}

impl Resource {
    /// That very name; `*` would mean all.
    pub fn literal(kind: i8, name: impl Into<String>) -> Self {
        Self { kind, pattern: pattern::LITERAL, name: name.into() }
    }

    /// All names that begin like this; all at all where it is empty.
    pub fn beginning(kind: i8, prefix: &str) -> Self {
        if prefix.is_empty() {
            return Self::literal(kind, "*");
        }
        Self { kind, pattern: pattern::PREFIXED, name: prefix.to_owned() }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            kind::TOPIC => f.write_str("topic")?,
            kind::GROUP => f.write_str("group")?,
            kind::CLUSTER => f.write_str("cluster")?,
            kind::TRANSACTIONAL_ID => f.write_str("transactional id")?,
            other => write!(f, "resource type {other}")?,
        }
        match self.pattern {
            pattern::PREFIXED => write!(f, "s that begin with {:?}", self.name),
            _ if self.name == "*" => f.write_str("s of any name"),
            _ => write!(f, " {:?}", self.name),
        }
    }
}

/// One ACL. What denies is ordered before what allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acl {
    /// One of [`permission`].
    pub permission: i8,
    /// `User:gateway`.
    pub principal: String,
    /// What it is about.
    pub resource: Resource,
    /// One of [`operation`].
    pub operation: i8,
    /// From where; `*` is anywhere.
    pub host: String,
}

impl Acl {
    /// A principal with this name may do this, from anywhere.
    pub fn allow(name: &str, operation: i8, resource: Resource) -> Self {
        let (principal, host) = (format!("User:{name}"), "*".to_owned());
        Self { permission: permission::ALLOW, principal, resource, operation, host }
    }

    /// It may not, whatever else is allowed.
    pub fn deny(name: &str, operation: i8, resource: Resource) -> Self {
        Self { permission: permission::DENY, ..Self::allow(name, operation, resource) }
    }
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let may = if self.permission == permission::DENY { "may not" } else { "may" };
        write!(f, "{} {may} ", self.principal)?;
        match self.operation {
            operation::ALL => f.write_str("do anything with")?,
            operation::READ => f.write_str("read")?,
            operation::WRITE => f.write_str("write")?,
            operation::DESCRIBE => f.write_str("describe")?,
            other => write!(f, "do operation {other} on")?,
        }
        write!(f, " {}", self.resource)?;
        if self.host == "*" { Ok(()) } else { write!(f, " from {}", self.host) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_reads_as_a_sentence() {
        let all = Resource::beginning(kind::TOPIC, "");
        assert_eq!(
            Acl::allow("gateway", operation::READ, all).to_string(),
            "User:gateway may read topics of any name"
        );
        let one = Resource::literal(kind::TOPIC, "tg-directory");
        assert_eq!(
            Acl::deny("gateway", operation::WRITE, one).to_string(),
            "User:gateway may not write topic \"tg-directory\""
        );
        let strange = Resource { kind: 7, ..Resource::beginning(kind::GROUP, "x") };
        let strange = Acl { host: "10.0.0.1".to_owned(), ..Acl::allow("x", 10, strange) };
        assert_eq!(
            strange.to_string(),
            "User:x may do operation 10 on resource type 7s that begin with \"x\" from 10.0.0.1"
        );
    }
}
