//! Kafka's controllers: who leads, who votes, who reads along, who keeps up. Reading the answer is pure.

use super::call::Call as _;
use super::connection::{Connection, Socket};
use super::error::WireError;
use crate::kafka::identity::Uuid;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::describe_quorum_response::{PartitionData as Described, ReplicaState};
use kafka_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;

/// The log of Kafka's metadata.
const METADATA: &str = "__cluster_metadata";
/// A voter keeps up when it had everything within this time before now, by the leader's clock, in milliseconds. The
/// leader writes something every 500 ms, and voters ask as often.
const KEEPS_UP: i64 = 3_000;

/// Kafka's controllers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quorum {
    /// The active controller.
    pub leader: i32,
    /// The voters, by node.
    pub voters: BTreeMap<i32, Replica>,
    /// Who reads along without a vote, by node and log directory. One that is gone stays here for some minutes.
    pub observers: BTreeMap<(i32, Uuid), Replica>,
}

/// One of those that hold the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The id of its log directory; absent: this Kafka does not say.
    pub directory: Option<Uuid>,
    /// Whether it has what the leader has, but for what is on its way.
    pub caught_up: bool,
    /// How many records of metadata it lacks, as far as the leader knows.
    pub lag: i64,
}

impl Quorum {
    /// Voters that must be there for anything to be decided.
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }
}

/// Asks the active controller, through any broker.
pub async fn describe<S: Socket>(connection: &mut Connection<S>) -> Result<Quorum, WireError> {
    let topic = TopicData::default()
        .with_topic_name(TopicName(StrBytes::from_static_str(METADATA)))
        .with_partitions(vec![PartitionData::default()]);
    let answer = connection.call(&DescribeQuorumRequest::default().with_topics(vec![topic])).await?;
    read(&answer)
}

/// What the answer says.
pub(super) fn read(answer: &DescribeQuorumResponse) -> Result<Quorum, WireError> {
    let what = DescribeQuorumRequest::WHAT;
    let refused = |code, message: Option<&StrBytes>| WireError::Refused {
        what,
        code,
        message: message.map(ToString::to_string),
    };
    if answer.error_code != 0 {
        return Err(refused(answer.error_code, answer.error_message.as_ref()));
    }
    let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
    let partition: &Described = partition
        .ok_or_else(|| WireError::Codec { what, detail: "the answer is about nothing".to_owned() })?;
    if partition.error_code != 0 {
        return Err(refused(partition.error_code, partition.error_message.as_ref()));
    }
    let leader = partition.leader_id.0;
    let of_leader = partition.current_voters.iter().find(|voter| voter.replica_id.0 == leader);
    // Between two leaders nobody can say who keeps up.
    let of_leader = of_leader
        .ok_or_else(|| WireError::Codec { what, detail: "no voter leads at the moment".to_owned() })?;
    let replica = |replica: &ReplicaState, leads: bool| {
        let lag = (of_leader.log_end_offset - replica.log_end_offset).max(0);
        let age = of_leader.last_caught_up_timestamp - replica.last_caught_up_timestamp;
        let fresh = replica.last_caught_up_timestamp > 0 && age <= KEEPS_UP;
        let directory = Uuid::from_bytes(replica.replica_directory_id.into_bytes());
        Replica { directory, caught_up: leads || fresh, lag }
    };
    let voters = partition.current_voters.iter().map(|voter| {
        let id = voter.replica_id.0;
        (id, replica(voter, id == leader))
    });
    let observers = partition.observers.iter().filter_map(|observer| {
        let observer = (observer.replica_id.0, replica(observer, false));
        Some(((observer.0, observer.1.directory.clone()?), observer.1))
    });
    Ok(Quorum { leader, voters: voters.collect(), observers: observers.collect() })
}
