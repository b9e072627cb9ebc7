//! The calls that this client knows. Pure.

use kafka_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, ApiKey, ApiVersionsRequest, ApiVersionsResponse,
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
    DescribeAclsResponse, DescribeQuorumRequest, DescribeQuorumResponse, RemoveRaftVoterRequest,
    RemoveRaftVoterResponse, UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message};

/// A request and the answer that belongs to it.
pub trait Call: Encodable + Message + HeaderVersion + Sync {
    /// Which request it is.
    const API: ApiKey;
    /// What it does, as it stands after "failed to".
    const WHAT: &'static str;
    /// What comes back.
    type Answer: Decodable + Message + HeaderVersion + Send;
}

impl Call for ApiVersionsRequest {
    const API: ApiKey = ApiKey::ApiVersions;
    const WHAT: &'static str = "ask Kafka what it can do";
    type Answer = ApiVersionsResponse;
}

impl Call for DescribeQuorumRequest {
    const API: ApiKey = ApiKey::DescribeQuorum;
    const WHAT: &'static str = "read the state of Kafka's controllers";
    type Answer = DescribeQuorumResponse;
}

impl Call for UpdateFeaturesRequest {
    const API: ApiKey = ApiKey::UpdateFeatures;
    const WHAT: &'static str = "raise the version of Kafka's metadata";
    type Answer = UpdateFeaturesResponse;
}

impl Call for AddRaftVoterRequest {
    const API: ApiKey = ApiKey::AddRaftVoter;
    const WHAT: &'static str = "let a new disk vote among Kafka's controllers";
    type Answer = AddRaftVoterResponse;
}

impl Call for RemoveRaftVoterRequest {
    const API: ApiKey = ApiKey::RemoveRaftVoter;
    const WHAT: &'static str = "take a lost disk's vote among Kafka's controllers away";
    type Answer = RemoveRaftVoterResponse;
}

impl Call for DescribeAclsRequest {
    const API: ApiKey = ApiKey::DescribeAcls;
    const WHAT: &'static str = "read the rights in Kafka";
    type Answer = DescribeAclsResponse;
}

impl Call for CreateAclsRequest {
    const API: ApiKey = ApiKey::CreateAcls;
    const WHAT: &'static str = "give rights in Kafka";
    type Answer = CreateAclsResponse;
}

impl Call for DeleteAclsRequest {
    const API: ApiKey = ApiKey::DeleteAcls;
    const WHAT: &'static str = "take rights in Kafka away";
    type Answer = DeleteAclsResponse;
}
