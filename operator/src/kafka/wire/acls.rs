//! ACLs: all that there are, and some more or fewer. Reading answers is pure.

use super::call::Call;
use super::connection::{Connection, Socket};
use super::error::WireError;
use crate::kafka::rights::Acl;
use crate::kafka::rights::acl::Resource;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
    DescribeAclsResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeSet;

/// A filter that everything fits.
const ANY: i8 = 1;
/// How many ACLs one request names: Kafka's controllers take up to 10,000 changes at once.
const BATCH: usize = 1000;

/// All ACLs, as this broker has them.
pub async fn describe<S: Socket>(connection: &mut Connection<S>) -> Result<BTreeSet<Acl>, WireError> {
    let ask = DescribeAclsRequest::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY);
    read(&connection.call(&ask).await?)
}

/// What the answer says.
pub(super) fn read(answer: &DescribeAclsResponse) -> Result<BTreeSet<Acl>, WireError> {
    took::<DescribeAclsRequest>(answer.error_code, answer.error_message.as_ref())?;
    let one = answer.resources.iter().flat_map(|about| {
        about.acls.iter().map(|acl| Acl {
            permission: acl.permission_type,
            principal: acl.principal.to_string(),
            resource: Resource {
                kind: about.resource_type,
                pattern: about.pattern_type,
                name: about.resource_name.to_string(),
            },
            operation: acl.operation,
            host: acl.host.to_string(),
        })
    });
    Ok(one.collect())
}

/// Makes these. One that is there stays.
pub async fn create<S: Socket>(connection: &mut Connection<S>, acls: &[Acl]) -> Result<(), WireError> {
    for batch in acls.chunks(BATCH) {
        let creations = batch.iter().map(|acl| {
            AclCreation::default()
                .with_resource_type(acl.resource.kind)
                .with_resource_name(text(&acl.resource.name))
                .with_resource_pattern_type(acl.resource.pattern)
                .with_principal(text(&acl.principal))
                .with_host(text(&acl.host))
                .with_operation(acl.operation)
                .with_permission_type(acl.permission)
        });
        let answer =
            connection.call(&CreateAclsRequest::default().with_creations(creations.collect())).await?;
        created(&answer)?;
    }
    Ok(())
}

pub(super) fn created(answer: &CreateAclsResponse) -> Result<(), WireError> {
    let mut all = answer.results.iter();
    all.try_for_each(|one| took::<CreateAclsRequest>(one.error_code, one.error_message.as_ref()))
}

/// Removes these. One that is gone already is fine.
pub async fn delete<S: Socket>(connection: &mut Connection<S>, acls: &[Acl]) -> Result<(), WireError> {
    for batch in acls.chunks(BATCH) {
        let filters = batch.iter().map(|acl| {
            DeleteAclsFilter::default()
                .with_resource_type_filter(acl.resource.kind)
                .with_resource_name_filter(Some(text(&acl.resource.name)))
                .with_pattern_type_filter(acl.resource.pattern)
                .with_principal_filter(Some(text(&acl.principal)))
                .with_host_filter(Some(text(&acl.host)))
                .with_operation(acl.operation)
                .with_permission_type(acl.permission)
        });
        let answer = connection.call(&DeleteAclsRequest::default().with_filters(filters.collect())).await?;
        deleted(&answer)?;
    }
    Ok(())
}

pub(super) fn deleted(answer: &DeleteAclsResponse) -> Result<(), WireError> {
    for one in &answer.filter_results {
        took::<DeleteAclsRequest>(one.error_code, one.error_message.as_ref())?;
        for acl in &one.matching_acls {
            took::<DeleteAclsRequest>(acl.error_code, acl.error_message.as_ref())?;
        }
    }
    Ok(())
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn took<C: Call>(code: i16, message: Option<&StrBytes>) -> Result<(), WireError> {
    match code {
        0 => Ok(()),
        code => Err(WireError::Refused { what: C::WHAT, code, message: message.map(ToString::to_string) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::create_acls_response::AclCreationResult;
    use kafka_protocol::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
    use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};

    #[test]
    fn what_kafka_has_is_read_whatever_it_is_about() {
        let acl = |operation| {
            AclDescription::default()
                .with_principal(text("User:x"))
                .with_host(text("*"))
                .with_operation(operation)
                .with_permission_type(3)
        };
        let about = DescribeAclsResource::default()
            .with_resource_type(7)
            .with_resource_name(text("later"))
            .with_pattern_type(3)
            .with_acls(vec![acl(3), acl(99)]);
        let found = read(&DescribeAclsResponse::default().with_resources(vec![about])).unwrap();
        let resource = Resource { kind: 7, pattern: 3, name: "later".to_owned() };
        assert_eq!(found, [3, 99].map(|operation| Acl::allow("x", operation, resource.clone())).into());
    }

    #[test]
    fn one_refusal_among_many_is_a_refusal_with_kafkas_words() {
        let fine = AclCreationResult::default();
        let bad = fine.clone().with_error_code(44).with_error_message(Some(text("too many")));
        assert!(created(&CreateAclsResponse::default().with_results(vec![fine.clone()])).is_ok());
        let said = created(&CreateAclsResponse::default().with_results(vec![fine, bad])).unwrap_err();
        assert!(said.to_string().contains("error 44: too many"), "{said}");
        let acl = DeleteAclsMatchingAcl::default().with_error_code(41);
        let one = DeleteAclsFilterResult::default().with_matching_acls(vec![acl]);
        assert!(deleted(&DeleteAclsResponse::default().with_filter_results(vec![one])).is_err());
        let off = DescribeAclsResponse::default().with_error_code(54);
        let failure = read(&off).unwrap_err().failure("keep rights");
        assert_eq!(failure.code, rdkafka::error::RDKafkaErrorCode::SecurityDisabled);
    }
}
