//! Framing and answers, with hostile bytes; the real Kafka is in `tests/kafka_wire.rs`.

use super::frame::{self, FrameError, LONGEST};
use super::{Connection, WireError, features, quorum};
use bytes::Bytes;
use kafka_protocol::messages::describe_quorum_response::{PartitionData, ReplicaState, TopicData};
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, DescribeQuorumResponse, UpdateFeaturesResponse,
};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

/// An answer to `ApiVersions` version 3, as a broker writes it: no error, two calls, no features.
fn api_versions(correlation: i32) -> Vec<u8> {
    let mut body = correlation.to_be_bytes().to_vec();
    body.extend(0_i16.to_be_bytes());
    body.push(3);
    for (key, highest) in [(18_i16, 4_i16), (55, 2)] {
        body.extend(key.to_be_bytes());
        body.extend(0_i16.to_be_bytes());
        body.extend(highest.to_be_bytes());
        body.push(0);
    }
    body.extend(0_i32.to_be_bytes());
    body.push(0);
    body
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = i32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

/// Opens a connection to a broker that answers the first request with these bytes and hangs up.
async fn open(answer: Vec<u8>) -> Result<Connection<tokio::io::DuplexStream>, WireError> {
    let (ours, mut theirs) = duplex(1 << 16);
    tokio::spawn(async move {
        let length = theirs.read_i32().await.unwrap();
        let mut request = vec![0; usize::try_from(length).unwrap()];
        theirs.read_exact(&mut request).await.unwrap();
        theirs.write_all(&answer).await.unwrap();
    });
    Connection::open(ours).await
}

#[tokio::test]
async fn a_broker_that_says_what_it_can_do_is_understood() {
    let mut connection = open(framed(&api_versions(1))).await.unwrap();
    assert_eq!(connection.features().metadata, None);
    // It hung up: the next call fails, and says so.
    let error = quorum::describe(&mut connection).await.unwrap_err();
    assert!(matches!(error, WireError::Broken { .. }), "{error}");
    let error = features::raise(&mut connection, 27).await.unwrap_err();
    assert!(matches!(error, WireError::Unsupported(_)), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_too_long_too_short_or_anothers_is_refused() {
    let too_long = i32::try_from(LONGEST + 1).unwrap();
    for (answer, expected) in [
        (too_long.to_be_bytes().to_vec(), FrameError::Length(too_long)),
        (3_i32.to_be_bytes().to_vec(), FrameError::Length(3)),
        ((-1_i32).to_be_bytes().to_vec(), FrameError::Length(-1)),
        (b"HTTP/1.1 400".to_vec(), FrameError::Length(i32::from_be_bytes(*b"HTTP"))),
        (framed(&api_versions(7)), FrameError::Correlation { expected: 1, found: 7 }),
        (framed(&[api_versions(1), vec![9; 3]].concat()), FrameError::Tail(3)),
    ] {
        match open(answer).await {
            Err(WireError::Frame { source, .. }) => assert_eq!(source, expected),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("taken: {expected}"),
        }
    }
}

#[tokio::test]
async fn an_answer_that_ends_early_is_a_broken_connection() {
    let whole = framed(&api_versions(1));
    for cut in [0, 2, 4, whole.len() - 1] {
        let error = open(whole[..cut].to_vec()).await.err().unwrap();
        assert!(matches!(error, WireError::Broken { .. }), "{cut}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_says_nothing_is_not_waited_for_forever() {
    let (ours, _theirs) = duplex(1 << 16);
    let error = Connection::open(ours).await.err().unwrap();
    assert!(matches!(error, WireError::Timeout { .. }), "{error}");
}

proptest! {
    #[test]
    fn no_bytes_bring_the_reader_down(body in prop::collection::vec(any::<u8>(), 0..200)) {
        // The codec reserves room for as many elements as are announced, so the count stays small here.
        let mut frame = api_versions(1);
        let at = body.len() % frame.len();
        frame.truncate(at.max(7));
        frame.extend(body.iter().map(|byte| byte & 0x3f));
        let _ = frame::answer::<ApiVersionsRequest>(Bytes::from(frame), 3, 1);
    }

    #[test]
    fn a_length_is_taken_only_between_its_bounds(prefix in any::<[u8; 4]>()) {
        let said = i64::from(i32::from_be_bytes(prefix));
        let fits = (4..=i64::try_from(LONGEST).unwrap()).contains(&said);
        prop_assert_eq!(frame::length(prefix).is_ok(), fits);
    }
}

fn replica(id: i32, end: i64, caught_up: i64) -> ReplicaState {
    ReplicaState::default()
        .with_replica_id(BrokerId(id))
        .with_log_end_offset(end)
        .with_last_caught_up_timestamp(caught_up)
}

fn described(leader: i32, voters: Vec<ReplicaState>) -> DescribeQuorumResponse {
    let partition = PartitionData::default().with_leader_id(BrokerId(leader)).with_current_voters(voters);
    DescribeQuorumResponse::default().with_topics(vec![TopicData::default().with_partitions(vec![partition])])
}

#[test]
fn a_voter_keeps_up_by_the_leaders_own_clock() {
    let now = 1_800_000_000_000;
    let answer = described(
        1,
        vec![
            replica(0, 90, now - 400),
            replica(1, 100, now),
            replica(2, 10, now - 60_000),
            replica(3, 0, -1),
        ],
    );
    let quorum = quorum::read(&answer).unwrap();
    let caught_up: Vec<_> = quorum.voters.values().map(|voter| voter.caught_up).collect();
    assert_eq!((quorum.leader, caught_up), (1, vec![true, true, false, false]));
    assert_eq!((quorum.voters[&0].lag, quorum.majority()), (10, 3));
}

#[test]
fn who_reads_along_is_known_with_its_disk() {
    let now = 1_800_000_000_000;
    let disk = crate::kafka::identity::Uuid::random();
    let mut answer = described(1, vec![replica(1, 100, now)]);
    let on_disk = |lag: i64| {
        replica(2, 100 - lag, now - lag).with_replica_directory_id(uuid::Uuid::from_bytes(disk.bytes()))
    };
    answer.topics[0].partitions[0].observers = vec![on_disk(3), replica(3, 100, now)];
    let quorum = quorum::read(&answer).unwrap();
    assert_eq!(
        quorum.observers.keys().collect::<Vec<_>>(),
        [&(2, disk.clone())],
        "an old Kafka names no disks"
    );
    let found = &quorum.observers[&(2, disk)];
    assert_eq!((found.caught_up, found.lag), (true, 3));
    assert_eq!(quorum.voters[&1].directory, None);
}

#[test]
fn a_quorum_without_a_leader_or_with_an_error_is_no_picture() {
    assert!(quorum::read(&described(-1, vec![replica(0, 1, 1)])).is_err());
    assert!(quorum::read(&DescribeQuorumResponse::default()).is_err());
    let denied = DescribeQuorumResponse::default().with_error_code(31);
    let failure = quorum::read(&denied).unwrap_err().failure("look");
    assert_eq!(failure.reason(), "KafkaForbidden", "{}", failure.message());
}

#[test]
fn versions_of_the_metadata_have_levels_and_a_release_means_its_last() {
    assert_eq!(features::level("4.1-IV0"), Some(26));
    assert_eq!(features::level("4.1"), Some(27));
    assert_eq!(features::level("4"), None);
    assert_eq!(features::level("9.9"), None);
    assert_eq!((features::name(27).as_str(), features::name(99).as_str()), ("4.1-IV1", "level 99"));
    let refused =
        UpdateFeaturesResponse::default().with_error_code(91).with_error_message(Some("too new".into()));
    assert!(features::read(&refused).unwrap_err().to_string().contains("error 91: too new"));
    assert!(features::read(&UpdateFeaturesResponse::default()).is_ok());
}
