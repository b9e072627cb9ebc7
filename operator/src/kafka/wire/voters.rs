//! A voter among Kafka's controllers is exchanged for the same node with another disk. Deciding the next step is pure;
//! [`exchange`] does the calls.
//!
//! A node has one place among the voters, so the lost disk's has to go before the new one's can come. In between the
//! others decide alone and cannot spare anybody. So the new disk reads along first, until it has everything; only then
//! the two calls follow each other, and none is made while another voter lags.

use super::call::Call;
use super::connection::{Connection, Socket};
use super::error::WireError;
use super::quorum::{Quorum, describe};
use crate::kafka::identity::Uuid;
use kafka_protocol::messages::add_raft_voter_request::Listener;
use kafka_protocol::messages::{AddRaftVoterRequest, RemoveRaftVoterRequest};
use kafka_protocol::protocol::StrBytes;
use std::time::Duration;

/// The controllers' listener, as the brokers' settings name it.
const LISTENER: &str = "CONTROLLER";
/// How long Kafka may take to add a voter, in milliseconds: less than a call may take.
const LIMIT: i32 = 4_000;
/// Calls of one attempt: one away, and in as often as the active controller is still busy with the lost disk.
const STEPS: usize = 12;
/// The active controller has no free connection to the node yet (measured: for some hundred milliseconds after the lost
/// disk's vote went). Waiting for the next sweep would leave the others alone for longer.
const BUSY: i16 = 7;
/// The time until it is asked again.
const PAUSE: Duration = Duration::from_millis(250);

/// Which voter there shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Kafka's id of the cluster.
    pub cluster: Uuid,
    /// The node.
    pub node: i32,
    /// Its new log directory's id.
    pub directory: Uuid,
    /// The host on which its controller listens.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The node votes with its new disk.
    Done,
    /// The place of the lost disk, whose directory id this is, is given up.
    Remove(Uuid),
    /// The new disk takes it.
    Add,
    /// Nothing can be done for now; the words say why.
    Wait(String),
}

/// What comes next, as the active controller sees the quorum.
pub fn next(quorum: &Quorum, wanted: &Exchange) -> Next {
    let node = wanted.node;
    let old = quorum.voters.get(&node);
    if old.is_some_and(|old| old.directory.as_ref() == Some(&wanted.directory)) {
        return Next::Done;
    }
    if old.is_some_and(|old| old.caught_up) {
        return Next::Wait(format!(
            "controller {node} still votes with the disk that should be gone: another process uses it"
        ));
    }
    let Some(new) = quorum.observers.get(&(node, wanted.directory.clone())) else {
        return Next::Wait(format!("controller {node} has not read along on its new disk yet"));
    };
    if !new.caught_up {
        return Next::Wait(format!("controller {node} lacks {} records of metadata", new.lag));
    }
    if let Some((other, _)) = quorum.voters.iter().find(|(id, voter)| **id != node && !voter.caught_up) {
        return Next::Wait(format!(
            "controller {other} has not caught up, and each of the others is needed while voters are exchanged"
        ));
    }
    match old.map(|old| &old.directory) {
        None => Next::Add,
        Some(Some(lost)) => Next::Remove(lost.clone()),
        Some(None) => Next::Wait("this Kafka does not say on which disk a controller votes".to_owned()),
    }
}

/// Exchanges the voter as far as can be now, and says what is left. Safe to repeat from any point.
pub async fn exchange<S: Socket>(
    connection: &mut Connection<S>,
    wanted: &Exchange,
) -> Result<Next, WireError> {
    let mut step = next(&describe(connection).await?, wanted);
    for _ in 0..STEPS {
        match &step {
            Next::Done | Next::Wait(_) => break,
            Next::Remove(lost) => remove(connection, wanted, lost).await?,
            Next::Add => match add(connection, wanted).await {
                Err(WireError::Refused { code: BUSY, message, .. }) => {
                    tracing::debug!(node = wanted.node, message, "a new disk may not vote yet");
                    tokio::time::sleep(PAUSE).await;
                }
                other => other?,
            },
        }
        step = next(&describe(connection).await?, wanted);
    }
    Ok(step)
}

async fn remove<S: Socket>(
    connection: &mut Connection<S>,
    wanted: &Exchange,
    lost: &Uuid,
) -> Result<(), WireError> {
    let ask = RemoveRaftVoterRequest::default()
        .with_cluster_id(Some(StrBytes::from_string(wanted.cluster.to_string())))
        .with_voter_id(wanted.node)
        .with_voter_directory_id(uuid::Uuid::from_bytes(lost.bytes()));
    let answer = connection.call(&ask).await?;
    took::<RemoveRaftVoterRequest>(answer.error_code, answer.error_message.as_ref())?;
    tracing::info!(node = wanted.node, directory = %lost, "a lost disk votes no more");
    Ok(())
}

async fn add<S: Socket>(connection: &mut Connection<S>, wanted: &Exchange) -> Result<(), WireError> {
    let listener = Listener::default()
        .with_name(StrBytes::from_static_str(LISTENER))
        .with_host(StrBytes::from_string(wanted.host.clone()))
        .with_port(wanted.port);
    let ask = AddRaftVoterRequest::default()
        .with_cluster_id(Some(StrBytes::from_string(wanted.cluster.to_string())))
        .with_timeout_ms(LIMIT)
        .with_voter_id(wanted.node)
        .with_voter_directory_id(uuid::Uuid::from_bytes(wanted.directory.bytes()))
        .with_listeners(vec![listener]);
    let answer = connection.call(&ask).await?;
    took::<AddRaftVoterRequest>(answer.error_code, answer.error_message.as_ref())?;
    tracing::info!(node = wanted.node, directory = %wanted.directory, "a new disk votes");
    Ok(())
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
    use crate::kafka::wire::quorum::Replica;
    use proptest::prelude::*;

    fn exchange() -> Exchange {
        Exchange {
            cluster: Uuid::random(),
            node: 1,
            directory: Uuid::random(),
            host: "plant-kafka-1".to_owned(),
            port: 9093,
        }
    }

    fn replica(directory: &Uuid, caught_up: bool) -> Replica {
        Replica { directory: Some(directory.clone()), caught_up, lag: i64::from(!caught_up) * 7 }
    }

    /// Three voters of which node 1's disk is lost, and that node's new disk, which has read everything.
    fn ready(wanted: &Exchange, lost: &Uuid) -> Quorum {
        let other = Uuid::random();
        Quorum {
            leader: 2,
            voters: [(0, replica(&other, true)), (1, replica(lost, false)), (2, replica(&other, true))]
                .into(),
            observers: [((1, wanted.directory.clone()), replica(&wanted.directory, true))].into(),
        }
    }

    #[test]
    fn the_lost_disks_place_is_given_up_then_taken_and_then_nothing_is_left_to_do() {
        let (wanted, lost) = (exchange(), Uuid::random());
        let mut quorum = ready(&wanted, &lost);
        assert_eq!(next(&quorum, &wanted), Next::Remove(lost));
        quorum.voters.remove(&1);
        assert_eq!(next(&quorum, &wanted), Next::Add);
        quorum.voters.insert(1, replica(&wanted.directory, true));
        quorum.observers.clear();
        assert_eq!(next(&quorum, &wanted), Next::Done);
    }

    #[test]
    fn nothing_is_given_up_while_the_new_disk_lags_or_a_disk_of_an_earlier_attempt_reads_along() {
        let (wanted, lost) = (exchange(), Uuid::random());
        let mut quorum = ready(&wanted, &lost);
        quorum.observers.insert((1, wanted.directory.clone()), replica(&wanted.directory, false));
        assert!(matches!(next(&quorum, &wanted), Next::Wait(why) if why.contains("lacks 7 records")));
        quorum.observers = [((1, Uuid::random()), replica(&lost, true))].into();
        assert!(matches!(next(&quorum, &wanted), Next::Wait(why) if why.contains("not read along")));
    }

    #[test]
    fn a_disk_that_is_in_use_is_not_lost() {
        let (wanted, lost) = (exchange(), Uuid::random());
        let mut quorum = ready(&wanted, &lost);
        quorum.voters.insert(1, replica(&lost, true));
        assert!(matches!(next(&quorum, &wanted), Next::Wait(why) if why.contains("another process")));
    }

    proptest! {
        #[test]
        fn no_voter_is_taken_or_added_while_another_lags(zero: bool, two: bool, old: Option<bool>, new: Option<bool>) {
            let (wanted, lost) = (exchange(), Uuid::random());
            let mut quorum = ready(&wanted, &lost);
            quorum.voters.insert(0, replica(&lost, zero));
            quorum.voters.insert(2, replica(&lost, two));
            match old {
                Some(caught_up) => drop(quorum.voters.insert(1, replica(&lost, caught_up))),
                None => drop(quorum.voters.remove(&1)),
            }
            quorum.observers.clear();
            if let Some(caught_up) = new {
                quorum.observers.insert((1, wanted.directory.clone()), replica(&wanted.directory, caught_up));
            }
            let step = next(&quorum, &wanted);
            let safe = zero && two && new == Some(true) && old != Some(true);
            prop_assert_eq!(matches!(step, Next::Remove(_) | Next::Add), safe, "{:?}", step);
        }
    }
}
