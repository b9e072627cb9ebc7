//! The prober on real sockets.

use crate::failover::health::Outcome;
use crate::failover::probe::{PATIENCE, Plan, Target, probe, round, run};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

async fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A listener whose queue is full lets every further SYN fall, as a dead machine does.
async fn black_hole() -> (TcpListener, Vec<tokio::net::TcpStream>, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await
    {
        held.push(stream);
    }
    (listener, held, address)
}

#[tokio::test]
async fn a_listener_answers_a_closed_port_refuses_and_a_black_hole_times_out() {
    let (listener, open) = listening().await;
    assert_eq!(probe(open).await, Outcome::Answered);
    let (stream, _) = listener.accept().await.unwrap();
    drop((stream, listener));
    assert_eq!(probe(open).await, Outcome::Refused);
    let (_listener, _held, hole) = black_hole().await;
    let began = Instant::now();
    assert_eq!(probe(hole).await, Outcome::TimedOut);
    assert!(began.elapsed() >= PATIENCE);
}

#[tokio::test]
async fn a_round_asks_all_at_once_and_closes_what_it_opened() {
    let (listener, open) = listening().await;
    let (_full, _held, hole) = black_hole().await;
    let all = [open, hole, hole, hole].map(|address| Target { node: "node2".to_owned(), address });
    let began = Instant::now();
    let round = round(&all, began).await;
    assert!(began.elapsed() < 3 * PATIENCE, "one after the other");
    let count = |outcome| round.answers.iter().filter(|answer| answer.outcome == outcome).count();
    assert_eq!((count(Outcome::Answered), count(Outcome::TimedOut)), (1, 3));
    let (stream, _) = listener.accept().await.unwrap();
    // It is over, by reset or end, and not held open.
    let mut byte = [0; 1];
    let ended = tokio::time::timeout(Duration::from_secs(5), async {
        stream.readable().await.unwrap();
        stream.try_read(&mut byte)
    });
    assert!(!matches!(ended.await.unwrap(), Ok(1..)));
}

#[tokio::test]
async fn a_prober_that_begins_late_says_so() {
    let (_listener, address) = listening().await;
    let target = Target { node: "node2".to_owned(), address };
    let late = round(&[target], Instant::now().checked_sub(Duration::from_millis(250)).unwrap()).await.late;
    assert!(late >= Duration::from_millis(250), "{late:?}");
}

#[tokio::test]
async fn the_prober_follows_its_plan_and_ends_with_its_listener() {
    let (_listener, address) = listening().await;
    let plan = |targets: Vec<Target>| Plan { targets: targets.into(), interval: Duration::from_millis(20) };
    let (change, planned) = watch::channel(plan(Vec::new()));
    let (sender, mut rounds) = mpsc::channel(4);
    let prober = tokio::spawn(run(planned, sender));
    change.send_replace(plan(vec![Target { node: "node2".to_owned(), address }]));
    for _ in 0..3 {
        assert_eq!(rounds.recv().await.unwrap().answers.len(), 1);
    }
    let targets: Arc<[Target]> = change.borrow().targets.clone();
    assert_eq!(targets.len(), 1);
    drop(rounds);
    prober.await.unwrap();
}
