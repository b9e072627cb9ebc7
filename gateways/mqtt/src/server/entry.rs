//! A client on its way in, and its place once it is in. IO: none of its own; core verifies passwords on its threads.

use super::desired::{Desired, Due, News};
use super::{Client, Shared};
use crate::codec::Reason;
use crate::session::Admit;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use tidegate_core::{Action, Admission, NotAdmitted, Proof, Secret, Target};
use tokio::time::Instant;

/// Whether the client is known, and what it may do then.
pub(super) struct Entry {
    state: State,
    /// The device is ahead of its fleet's limits until then.
    paced: Option<Instant>,
    desired: Desired,
}

enum State {
    /// CONNECT has not come, or was refused.
    Outside,
    /// It is found out who it is.
    Asking(BoxFuture<'static, (Admit, Result<Admission, NotAdmitted>)>),
    Inside(Admission),
}

/// What happens to a client without its doing.
pub(super) enum Change {
    /// It is known who it is, or that it may not come in.
    Known(Admit, Result<Admission, NotAdmitted>),
    /// It may not be here any more.
    Revoked,
    /// It may be read again.
    Paced,
    /// It has to get its desired document: see [`Entry::news`].
    Configured,
}

impl Entry {
    /// Nobody yet.
    pub(super) fn new() -> Self {
        Self { state: State::Outside, paced: None, desired: Desired::default() }
    }

    /// Finds out who the client is: see [`Entry::change`].
    pub(super) fn ask(&mut self, admit: Admit, client: Client, shared: &Arc<Shared>) {
        let shared = Arc::clone(shared);
        let task = async move {
            let proof = match (&client.certificate, &admit.username, &admit.password) {
                (Some(certificate), username, _) => {
                    Proof::Certificate { certificate, username: username.as_deref() }
                }
                (None, None, None) => Proof::Nothing,
                (None, username, password) => Proof::Password {
                    username: username.as_deref().unwrap_or_default(),
                    password: Secret(password.as_ref().map_or(&[], |password| &password.0)),
                },
            };
            let result = shared.access.admit(client.source, proof, Some(&admit.client_id)).await;
            (admit, result)
        };
        self.state = State::Asking(task.boxed());
    }

    /// The client is in.
    pub(super) fn enter(&mut self, admission: Admission) {
        self.state = State::Inside(admission);
        self.pace();
    }

    /// Who is in.
    pub(super) const fn admission(&self) -> Option<&Admission> {
        match &self.state {
            State::Inside(admission) => Some(admission),
            State::Outside | State::Asking(_) => None,
        }
    }

    /// Whether the client may do it.
    pub(super) fn may<'a>(&self, action: Action, target: impl Into<Target<'a>>) -> bool {
        self.admission().is_some_and(|admission| admission.check(action, target).is_ok())
    }

    /// Counts a message of the client. One that is ahead of its limits is not read for a while, which loses nothing.
    pub(super) fn spend(&mut self, bytes: usize) {
        if let Some(admission) = self.admission() {
            admission.spend(bytes);
        }
        self.pace();
    }

    /// Looks how long the client is not to be read: other connections of the device count as well.
    pub(super) fn pace(&mut self) {
        self.paced = self.admission().and_then(Admission::wait).map(|wait| Instant::now() + wait);
    }

    /// Whether the client is not to be read for now.
    pub(super) const fn is_paced(&self) -> bool {
        self.paced.is_some()
    }

    /// The client is given its desired document from now on, each other one.
    pub(super) fn follow(&mut self) {
        let current = self.admission().and_then(Admission::configuration);
        self.desired.follow(current);
    }

    /// The client asks for its desired document as it is.
    pub(super) fn ask_desired(&mut self) {
        self.desired.ask();
    }

    /// The client is not given its desired document any more.
    pub(super) fn leave(&mut self) {
        self.desired.leave();
    }

    /// What to tell the client of its desired document.
    pub(super) fn news(&mut self) -> Option<News> {
        let current = self.admission().and_then(Admission::configuration);
        self.desired.next(current)
    }

    /// Returns when something happens; `takes`: whether the client takes a message. Cancel-safe.
    pub(super) async fn change(&mut self, takes: bool) -> Change {
        match &mut self.state {
            State::Outside => std::future::pending().await,
            State::Asking(task) => {
                let (admit, result) = task.await;
                self.state = State::Outside;
                Change::Known(admit, result)
            }
            State::Inside(admission) => {
                let desired = async {
                    match self.desired.known() {
                        Some(Ok(known)) => admission.configured(known).await,
                        Some(Err(Due)) => {}
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    // who has to go learns nothing more
                    biased;
                    () = admission.ended() => Change::Revoked,
                    () = desired, if takes => Change::Configured,
                    () = super::until(self.paced) => Change::Paced,
                }
            }
        }
    }
}

/// The reason code of a refusal (MQTT 5 §3.2.2.2).
pub(super) const fn reason(why: NotAdmitted) -> Reason {
    match why {
        NotAdmitted::Wrong | NotAdmitted::OtherName => Reason::BadUserNameOrPassword,
        NotAdmitted::Nobody
        | NotAdmitted::Disabled
        | NotAdmitted::NotDeclared
        | NotAdmitted::CertificateExpired
        | NotAdmitted::AuthorityGone
        | NotAdmitted::NoName => Reason::NotAuthorized,
        NotAdmitted::TooOften { .. } => Reason::ConnectionRateExceeded,
        NotAdmitted::TooMany => Reason::QuotaExceeded,
        NotAdmitted::Busy => Reason::ServerBusy,
    }
}
