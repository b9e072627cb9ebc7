//! Makes the attachments of a platform's own networks and looks for those that it refers to. IO against the API server.

use super::allow::{NetworkRule, subject};
use super::definition::{NetworkAttachmentDefinition, attachments, made};
use crate::frame::failure::{ReadError, is_unknown_kind};
use crate::frame::{ApplyError, Children, Class, Context, Cycle, Failure, StepError};
use kube::Api;
use kube::api::DynamicObject;
use tidegate_crds::conditions::{ACCEPTED, RESOLVED_REFS};
use tidegate_crds::network::Network;
use tidegate_crds::{IoTPlatform, reasons};

/// Why a platform's networks are not all there.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The administrator lets nobody make them.
    #[error(
        "{} may not be made: the administrator allows {allowed}. Refer to an attachment that exists with attachmentRef, or ask the administrator for it (the operator's --network-allow-list)",
        .networks.join(", ")
    )]
    NotAllowed {
        /// The networks' paths, with what would be made.
        networks: Vec<String>,
        /// What may be made.
        allowed: String,
    },
    /// There is no Multus.
    #[error(
        "spec.networks: this cluster has no Multus (no resource network-attachment-definitions.k8s.cni.cncf.io): install it, or remove spec.networks"
    )]
    NoMultus,
    /// Attachments that the platform refers to do not exist.
    #[error(
        "{} in namespace {namespace}: create it, or name another; pods that have their interfaces keep them",
        .networks.join(", ")
    )]
    NotFound {
        /// The networks' paths, with the attachments.
        networks: Vec<String>,
        /// Where they were looked for.
        namespace: String,
    },
    /// The API server did not take what is made.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The API server could not be asked.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl StepError for NetworkError {
    fn reason(&self) -> &'static str {
        match self {
            Self::NotAllowed { .. } => reasons::NOT_ALLOWED,
            Self::NoMultus => reasons::MULTUS_NOT_FOUND,
            Self::NotFound { .. } => reasons::ATTACHMENT_NOT_FOUND,
            Self::Apply(error) => error.reason(),
            Self::Read(error) => error.reason(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::NotAllowed { .. } => Class::Invalid,
            Self::NoMultus | Self::NotFound { .. } => Class::Blocked,
            Self::Apply(error) => error.class(),
            Self::Read(error) => error.class(),
        }
    }

    fn condition(&self) -> Option<&'static str> {
        match self {
            Self::NotAllowed { .. } => Some(ACCEPTED),
            Self::NoMultus | Self::NotFound { .. } => Some(RESOLVED_REFS),
            Self::Apply(_) | Self::Read(_) => None,
        }
    }
}

/// An attachment, as far as it is there.
#[derive(Clone, Debug)]
pub enum Attachment {
    /// It is there.
    There(Box<DynamicObject>),
    /// It does not exist.
    Missing,
    /// The cluster knows no attachments at all.
    NoMultus,
}

/// Looks for an attachment.
pub async fn look(context: &Context, namespace: &str, name: &str) -> Result<Attachment, ReadError> {
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &attachments());
    match api.get(name).await {
        Ok(found) => Ok(Attachment::There(Box::new(found))),
        Err(error) if is_unknown_kind(&error) => Ok(Attachment::NoMultus),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Attachment::Missing),
        Err(source) => {
            Err(ReadError { what: format!("NetworkAttachmentDefinition {namespace}/{name}"), source })
        }
    }
}

/// Sees to a platform's networks: makes those inside the allow-list, removes those that are no longer declared or
/// allowed, and looks for those that exist.
pub async fn settle(cycle: &mut Cycle<IoTPlatform>) -> Result<(), Failure> {
    Ok(settle_all(cycle).await?)
}

async fn settle_all(cycle: &mut Cycle<IoTPlatform>) -> Result<(), NetworkError> {
    let (subject, namespace) = (cycle.subject.clone(), cycle.namespace());
    let networks = &subject.spec.networks;
    let (children, refused) = build(&cycle.name(), networks, &cycle.context.options.network_allow_list);
    match cycle.apply(&children).await {
        Ok(_) => {}
        Err(ApplyError::Look { source, .. } | ApplyError::Write { source, .. })
            if is_unknown_kind(&source) =>
        {
            if !networks.is_empty() {
                return Err(NetworkError::NoMultus);
            }
        }
        Err(error) => return Err(error.into()),
    }
    if !refused.is_empty() {
        let allowed: Vec<_> =
            cycle.context.options.network_allow_list.iter().map(ToString::to_string).collect();
        let allowed = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
        return Err(NetworkError::NotAllowed { networks: refused, allowed });
    }
    let mut missing = Vec::new();
    for network in networks {
        let Some(reference) = &network.attachment_ref else { continue };
        match look(&cycle.context, &namespace, &reference.name).await? {
            Attachment::There(_) => {}
            Attachment::NoMultus => return Err(NetworkError::NoMultus),
            Attachment::Missing => missing.push(format!(
                "spec.networks[{}].attachmentRef.name: there is no NetworkAttachmentDefinition {:?}",
                network.name, reference.name
            )),
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(NetworkError::NotFound { networks: missing, namespace }) }
}

/// What is made for networks, and which may not be. Pure.
fn build(platform: &str, networks: &[Network], allowed: &[NetworkRule]) -> (Children, Vec<String>) {
    let (mut children, mut refused) = (Children::new(), Vec::new());
    for network in networks {
        if let Some((kind, interface, vlan)) = subject(network)
            && !allowed.iter().any(|rule| rule.allows(kind, interface, vlan))
        {
            let number = vlan.map(|id| format!(":{id}")).unwrap_or_default();
            refused.push(format!("spec.networks[{}] ({kind}:{interface}{number})", network.name));
        } else if let Some(made) = made(platform, network) {
            children.push(&made);
        }
    }
    children.prune::<NetworkAttachmentDefinition>();
    (children, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_made_and_the_rest_is_named() {
        let networks: Vec<Network> = serde_yaml::from_str(
            "[{name: a, macvlan: {master: eth1}}, {name: b, vlan: {master: eth1, id: 7}, ipam: {dhcp: {}}},
              {name: c, hostDevice: {device: eth2}}, {name: d, attachmentRef: {name: theirs}}]",
        )
        .unwrap();
        let rules = ["macvlan:eth1".parse().unwrap(), "vlan:eth1:8-9".parse().unwrap()];
        let (children, refused) = build("plant", &networks, &rules);
        let made: Vec<_> = children.wanted().iter().map(crate::frame::children::Child::what).collect();
        assert_eq!(made, ["NetworkAttachmentDefinition plant-a"]);
        assert_eq!(refused, ["spec.networks[b] (vlan:eth1:7)", "spec.networks[c] (hostDevice:eth2)"]);
        assert_eq!(children.pruned().len(), 1);
    }
}
