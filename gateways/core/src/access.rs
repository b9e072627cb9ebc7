//! Who comes in: the one place that decides it, for every protocol. Protocol crates bring what a device shows and
//! translate the answer. No IO; passwords are hashed on blocking threads.
//!
//! - **A refusal says nothing about who exists.** Whether there is such a device or not, the same hash is computed:
//!   the kind follows from the password that was offered (see [`tidegate_contract::credential`]), and where there is
//!   no such credential a decoy takes its place.
//! - **Guessing is held up, devices are not.** What was verified here before, and what costs a microsecond, is looked
//!   at first; only then a source or a principal that was wrong too often is told to come later. So nobody can lock a
//!   device out by guessing its password.

mod backoff;
mod table;
mod verify;

use crate::roster::{Admission, Barred, NoSeat, Roster, Unnamed, Way};
use crate::telemetry::AccessMetrics;
use crate::tls::DeviceCertificate;
use backoff::Backoff;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tidegate_contract::Principal;
use tidegate_contract::credential::{Credential, MAX_PASSWORD_BYTES, Memory};
use verify::{Remembered, Verifier};

/// What a device shows to prove who it is.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// Nothing at all.
    Nothing,
    /// A username and a password, either of which may be anything.
    Password {
        /// `<fleet>/<device>`, if the device does it right.
        username: &'a str,
        /// Its secret.
        password: Secret<'a>,
    },
    /// A certificate, which the TLS handshake verified. It says who the device is; a password beside it is not
    /// looked at.
    Certificate {
        /// What was verified.
        certificate: &'a DeviceCertificate,
        /// The username beside it, if there is one: it may name nobody else.
        username: Option<&'a str>,
    },
}

/// A secret. It shows itself in no log.
#[derive(Clone, Copy)]
pub struct Secret<'a>(pub &'a [u8]);

impl std::fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Why a device is not let in. The message is for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// It showed nothing, and no fleet takes that.
    #[error("say who you are: a username <fleet>/<device> and its password")]
    Nobody,
    /// There is no such device, or this is not its password.
    #[error("no device has this username and password")]
    Wrong,
    /// It proved who it is, and its fleet disables it.
    #[error("this device is disabled")]
    Disabled,
    /// Its certificate is valid, and its fleet wants a record of each device, which it has not.
    #[error("this device is not declared in its DeviceFleet")]
    NotDeclared,
    /// Its certificate went out of date since the handshake.
    #[error("this certificate is out of date: connect with a new one")]
    CertificateExpired,
    /// The authority of its certificate was taken from its fleet since the handshake.
    #[error("no fleet takes certificates of this authority any more: connect with one of another")]
    AuthorityGone,
    /// Its certificate is valid, and names no device.
    #[error(
        "this certificate names no device: its fleet wants exactly one common name, or one URI, that ends with a name that a device may have"
    )]
    NoName,
    /// The username beside its certificate is another one's.
    #[error(
        "the certificate is not of the device that the username names: leave the username out, or write <fleet>/<device>"
    )]
    OtherName,
    /// It was wrong too often, or its source was.
    #[error("wrong too often: try again in {} s", .after.as_secs() + 1)]
    TooOften {
        /// When another try is looked at.
        after: Duration,
    },
    /// `connectionsPerDevice` are open.
    #[error("this device has as many connections as its fleet allows")]
    TooMany,
    /// More passwords wait to be verified than can be in time.
    #[error("too many devices connect at once: try again later")]
    Busy,
}

impl NotAdmitted {
    /// A constant name for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Nobody => "NoCredentials",
            Self::Wrong => "WrongCredentials",
            Self::Disabled => "DeviceDisabled",
            Self::NotDeclared => "NotDeclared",
            Self::CertificateExpired => "CertificateExpired",
            Self::AuthorityGone => "AuthorityGone",
            Self::NoName => "CertificateWithoutName",
            Self::OtherName => "OtherUsername",
            Self::TooOften { .. } => "TooManyFailures",
            Self::TooMany => "TooManyConnections",
            Self::Busy => "VerifierBusy",
        }
    }
}

/// Lets devices in. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    roster: Roster,
    inner: Arc<Inner>,
    metrics: AccessMetrics,
}

struct Inner {
    verifier: Verifier,
    remembered: Remembered,
    backoff: Backoff,
}

impl Access {
    /// Access as `roster` has it.
    pub fn new(roster: Roster, metrics: AccessMetrics) -> Self {
        let inner = Inner {
            verifier: Verifier::default(),
            remembered: Remembered::default(),
            backoff: Backoff::default(),
        };
        Self { roster, inner: Arc::new(inner), metrics }
    }

    /// Lets a device in, or says why not. `name` is how the device calls this connection, where the protocol has such
    /// a thing: one with the name of an earlier one takes its place among those that the device may have.
    pub async fn admit(
        &self,
        source: IpAddr,
        proof: Proof<'_>,
        name: Option<&str>,
    ) -> Result<Admission, NotAdmitted> {
        let result = match proof {
            Proof::Nothing => self.nobody(name),
            Proof::Password { username, password } => self.password(source, username, password.0, name).await,
            Proof::Certificate { certificate, username } => self.certificate(certificate, username, name),
        };
        self.metrics.admitted(result.as_ref().map_or_else(|refused| refused.reason(), |_| "Admitted"));
        result
    }

    fn nobody(&self, name: Option<&str>) -> Result<Admission, NotAdmitted> {
        let principal = self.roster.anonymous().ok_or(NotAdmitted::Nobody)?;
        self.seat(&principal, Way::Anonymous, name)
    }

    /// Whoever comes here has a key that an authority of a fleet signed, or had: it may learn what is wrong.
    fn certificate(
        &self,
        certificate: &DeviceCertificate,
        username: Option<&str>,
        name: Option<&str>,
    ) -> Result<Admission, NotAdmitted> {
        if certificate.not_after() < SystemTime::now() {
            return Err(NotAdmitted::CertificateExpired);
        }
        let (principal, way) = self.roster.named(certificate).map_err(|why| match why {
            Unnamed::Authority => NotAdmitted::AuthorityGone,
            Unnamed::Name => NotAdmitted::NoName,
        })?;
        if username.is_some_and(|username| !username.is_empty() && username != principal.as_str()) {
            return Err(NotAdmitted::OtherName);
        }
        self.seat(&principal, way, name).map_err(|why| match why {
            // the fleet changed between the two looks
            NotAdmitted::Wrong => NotAdmitted::AuthorityGone,
            other => other,
        })
    }

    async fn password(
        &self,
        source: IpAddr,
        username: &str,
        password: &[u8],
        name: Option<&str>,
    ) -> Result<Admission, NotAdmitted> {
        let Inner { verifier, remembered, backoff } = &*self.inner;
        let wrong = || {
            backoff.failed(source, username, Instant::now());
            NotAdmitted::Wrong
        };
        let late =
            || backoff.wait(source, username, Instant::now()).map(|after| NotAdmitted::TooOften { after });
        // by its length alone: nobody has such a one
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(late().unwrap_or_else(wrong));
        }
        let principal = Principal::parse(username).ok();
        let known = principal.as_ref().and_then(|principal| self.roster.credential(principal));
        let credential =
            known.filter(|known| known.is_for(password)).unwrap_or_else(|| Credential::decoy(password));
        let came_before = remembered.contains(&credential, password);
        if !came_before && credential.is_cheap() {
            if !credential.verify(password, &mut Memory::default()) {
                return Err(late().unwrap_or_else(wrong));
            }
        } else if !came_before {
            if let Some(late) = late() {
                return Err(late);
            }
            // counted before it is known, or any number of guesses could be on their way at once
            let wrong = wrong();
            if !verifier.verify(credential, password).await.ok_or(NotAdmitted::Busy)? {
                return Err(wrong);
            }
            backoff.take_back(source);
            remembered.insert(&credential, password);
        }
        let principal = principal.ok_or_else(wrong)?;
        let admission = self.seat(&principal, Way::Password(Box::new(credential)), name);
        match admission {
            Ok(_) => backoff.succeeded(source, username),
            // the next one has to cost no more than a guess
            Err(NotAdmitted::Disabled | NotAdmitted::Wrong) => {
                backoff.failed(source, username, Instant::now());
            }
            Err(_) => {}
        }
        admission
    }

    fn seat(&self, principal: &Principal, way: Way, name: Option<&str>) -> Result<Admission, NotAdmitted> {
        self.roster.seat(principal, way, name).map_err(|why| match why {
            NoSeat::Barred(Barred::Unknown) => NotAdmitted::Wrong,
            NoSeat::Barred(Barred::Undeclared) => NotAdmitted::NotDeclared,
            NoSeat::Barred(Barred::Disabled) => NotAdmitted::Disabled,
            NoSeat::TooMany => NotAdmitted::TooMany,
        })
    }
}

#[cfg(test)]
mod tests;
