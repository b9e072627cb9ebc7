//! One connection: moves bytes and events between a socket, Kafka and the session. IO: the socket, through `wire`.

use super::convert::{document, inbound, record};
use super::entry::{Change, Entry, reason};
use super::input::Input;
use super::leave::leave_in;
use super::registry::Claim;
use super::wire::{Reading, Writing, farewell, split};
use super::{Client, Shared, session_config, until};
use crate::codec::Decoder;
use crate::codec::Reason;
use crate::session::{Action, Admit, Close, Message, Refusal, Session, Subscribed};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::io;
use std::sync::Arc;
use tidegate_contract::{Filter, Route, desired};
use tidegate_core::tail::SessionOptions;
use tidegate_core::tls::Stream;
use tidegate_core::{
    Action as Right, Admission, Completion, NotAdmitted, PublishError, PublishHandle, Record, Reliability,
    TailEvent, TailSession,
};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

/// Bounds of what waits in memory for one subscriber; more waits in Kafka. The records are shared with the tail
/// and other sessions, but 10,000 slow ones may each hold others.
const SUBSCRIBER: SessionOptions = SessionOptions { records: 256, bytes: 128 << 10 };
/// Records given to the session in one turn, so that one fast feed does not keep the socket waiting.
const RECORDS_PER_TURN: usize = 64;

/// A connection and everything it owns.
pub(super) struct Connection {
    reading: Reading,
    writing: Writing,
    shared: Arc<Shared>,
    id: u64,
    client: Client,
    entry: Entry,
    session: Session,
    decoder: Decoder,
    input: Input,
    publishes: PublishHandle,
    /// A publish that found no room; nothing else is done for the session before it.
    parked: Option<Parked>,
    /// The time to drain is over: nothing waits for room any more.
    drained: bool,
    feed: Feed,
    claim: Option<Claim>,
    /// The process ends, and when this connection's turn to end comes.
    shutting_down: bool,
    leave_at: Option<Instant>,
    closing: Option<Close>,
    will: Option<Box<Message>>,
}

struct Parked {
    token: u64,
    route: Arc<Route>,
    record: Record,
}

/// Where the connection's records come from.
enum Feed {
    /// Nothing was subscribed yet: a publisher costs no cursor.
    Absent,
    Ready(TailSession),
    /// The start positions of a SUBSCRIBE are being fixed; meanwhile everything else goes on.
    Subscribing(BoxFuture<'static, (TailSession, Vec<Subscribed>)>),
}

/// What a turn waited for.
enum Event {
    Read(io::Result<usize>),
    /// Room for input came, or did not in time.
    Memory(bool),
    SlowPacket,
    Wrote(io::Result<usize>),
    Completed,
    Room,
    Tail(TailEvent),
    Client(Change),
    Subscribed(TailSession, Vec<Subscribed>),
    Clock,
    TakenOver,
    Shutdown,
    Leave,
    Drained,
}

impl Connection {
    pub(super) fn new(stream: Stream, client: Client, shared: Arc<Shared>) -> Self {
        let (reading, writing) = split(stream);
        let id = shared.names.connection();
        let limits = shared.limits.limits();
        let session = Session::new(session_config(limits, shared.names.mark(id)), shared.clock.now());
        Self {
            decoder: Decoder::new(limits.packet_bytes),
            publishes: shared.publisher.connection(),
            reading,
            writing,
            id,
            client,
            entry: Entry::new(),
            session,
            input: Input::new(shared.input.clone()),
            parked: None,
            drained: false,
            feed: Feed::Absent,
            claim: None,
            shutting_down: false,
            leave_at: None,
            closing: None,
            will: None,
            shared,
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(mut self) {
        self.shared.metrics.opened();
        let mut completions = Vec::new();
        let close = loop {
            self.progress();
            let counts = self.session.take_counts();
            self.shared.metrics.add(&counts);
            if let Some(close) = self.closing {
                break close;
            }
            let event = self.wait(&mut completions).await;
            self.handle(event, &mut completions);
        };
        let wait = !matches!(close, Close::Disconnect | Close::Lost);
        farewell(&mut self.reading, &mut self.writing, self.session.output(), wait).await;
        self.claim = None;
        self.publish_will().await;
        self.shared.metrics.closed(close);
        tracing::debug!(reason = close.reason(), "connection closed");
    }

    /// Carries out what the session asks for and feeds it what was read, until neither is left.
    fn progress(&mut self) {
        loop {
            while self.parked.is_none()
                && let Some(action) = self.session.next_action()
            {
                self.act(action);
            }
            let waits = self.parked.is_some() || self.entry.is_paced() || self.input.is_waiting();
            let room = !waits && self.publishes.has_room();
            self.session.set_room(room, self.shared.clock.now());
            if !self.session.wants_packet() {
                return self.input.rest(self.parked.is_some());
            }
            match self.decoder.decode(self.input.bytes()) {
                Ok(Some(packet)) => {
                    self.input.decoded();
                    self.session.packet(packet, self.shared.clock.now());
                }
                Ok(None) => {
                    let packet = Decoder::announced(self.input.bytes());
                    self.input.make_room(packet);
                    // while it waits the keep-alive's clock stands still
                    self.session.set_room(!self.input.is_waiting(), self.shared.clock.now());
                    return;
                }
                Err(error) => self.session.malformed(error, self.shared.clock.now()),
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Admit(admit) => self.entry.ask(admit, self.client.clone(), &self.shared),
            Action::Publish { token, message } => {
                self.entry.spend(message.payload.len());
                match self.route(*message) {
                    Ok((route, record)) => self.hand_over(Parked { token, route, record }),
                    Err(refusal) => self.refuse(token, refusal),
                }
            }
            Action::Subscribe { filters } => self.subscribe(filters),
            Action::Retained(_) => self.entry.ask_desired(),
            Action::Unsubscribe(filter) if filter.is_kept() => self.entry.leave(),
            Action::Unsubscribe(filter) => {
                if let Feed::Ready(feed) = &mut self.feed {
                    feed.unsubscribe(&filter);
                }
            }
            Action::Will(message) => self.will = Some(message),
            Action::Close(close) => self.closing = Some(close),
        }
    }

    fn known(&mut self, admit: Admit, result: Result<Admission, NotAdmitted>) {
        let now = self.shared.clock.now();
        let admission = match result {
            Ok(admission) => admission,
            Err(why) => return self.turn_away(reason(why), &why.to_string()),
        };
        // nobody could be told later that a Will was never allowed
        if admit.will.is_some_and(|will| admission.check(Right::Publish, &will).is_err()) {
            return self.turn_away(Reason::NotAuthorized, "the device has no right to publish its Will");
        }
        let principal = admission.principal().clone();
        tracing::debug!(client_id = admit.client_id, %principal, "client connected");
        self.claim = Some(self.shared.registry.claim(principal, admit.client_id, self.id));
        self.entry.enter(admission);
        self.session.admitted(now);
        if let Some(version) = self.session.version() {
            self.shared.metrics.admitted(version);
        }
    }

    fn turn_away(&mut self, reason: Reason, text: &str) {
        self.session.turned_away(reason, text, self.shared.clock.now());
    }

    /// Rights first, then the way: who may not write does not learn what there is.
    fn route(&self, message: Message) -> Result<(Arc<Route>, Record), Refusal> {
        let admission = self.entry.admission().ok_or(Refusal::Denied)?;
        let address = &message.address;
        admission.check(Right::Publish, address).map_err(|_| Refusal::Denied)?;
        let route = self.shared.directory.routes().route(address).cloned().ok_or(Refusal::NoTopic)?;
        Ok((route, record(message, admission.principal(), self.shared.clock.now())))
    }

    fn hand_over(&mut self, publish: Parked) {
        let now = self.shared.clock.now();
        match self.publishes.publish(&publish.route, &publish.record, publish.token) {
            Ok(()) => {}
            // nobody was told that it is stored
            Err(PublishError::Budget) if self.drained => self.session.failed(publish.token, now),
            Err(PublishError::Budget) => self.parked = Some(publish),
            Err(PublishError::TooLarge { .. }) => self.refuse(publish.token, Refusal::TooLarge),
            Err(PublishError::Failed | PublishError::Unavailable) => self.session.failed(publish.token, now),
        }
    }

    fn refuse(&mut self, token: u64, refusal: Refusal) {
        self.shared.metrics.refused(refusal.reason());
        self.session.refused(token, refusal, self.shared.clock.now());
    }

    fn subscribe(&mut self, filters: Vec<(Filter, bool)>) {
        let filters = filters.into_iter().map(|(filter, reliable)| {
            if !self.entry.may(Right::Subscribe, &filter) {
                return Err(Subscribed::Denied);
            }
            if filter.is_kept() {
                // the directory is in memory: this waits for nothing
                self.entry.follow();
                return Err(Subscribed::Started);
            }
            Ok((filter, if reliable { Reliability::Reliable } else { Reliability::BestEffort }))
        });
        let filters: Vec<_> = filters.collect();
        let known: Option<Vec<_>> = filters.iter().map(|filter| filter.as_ref().err().copied()).collect();
        if let Some(results) = known {
            return self.session.subscribed(&results, self.shared.clock.now());
        }
        let mut feed = match std::mem::replace(&mut self.feed, Feed::Absent) {
            Feed::Ready(feed) => feed,
            Feed::Absent => self.shared.tail.session(SUBSCRIBER),
            // the session asks for one SUBSCRIBE at a time
            busy @ Feed::Subscribing(_) => {
                self.feed = busy;
                return;
            }
        };
        let task = async move {
            let mut results = Vec::with_capacity(filters.len());
            for filter in filters {
                let (filter, reliability) = match filter {
                    Ok(filter) => filter,
                    Err(known) => {
                        results.push(known);
                        continue;
                    }
                };
                if let Err(error) = feed.subscribe(filter, reliability).await {
                    tracing::debug!(%error, "failed to start a subscription");
                    results.push(Subscribed::Failed);
                    // it closes: each further one would only wait as long
                    break;
                }
                results.push(Subscribed::Started);
            }
            (feed, results)
        };
        self.feed = Feed::Subscribing(task.boxed());
    }

    /// Waits until something can be done. Everything waited for is cancel-safe.
    async fn wait(&mut self, completions: &mut Vec<Completion>) -> Event {
        let wants_packet = self.session.wants_packet();
        let wants_record = self.session.wants_record();
        let no_room = self.parked.is_some() || !self.publishes.has_room();
        let room = self.publishes.room();
        let shutting_down = self.shutting_down;
        let deadline = self.session.deadline_ms().map(|ms| self.shared.clock.at(ms));
        let (read, output) = (&mut self.reading, self.session.output());
        let sends = self.writing.has_work(output);
        let slow = self.input.deadline().filter(|_| wants_packet);
        let input = async {
            if self.input.is_waiting() {
                Event::Memory(self.input.room().await)
            } else if wants_packet {
                Event::Read(read.read_buf(&mut self.input.space()).await)
            } else {
                std::future::pending().await
            }
        };
        let feed = async {
            match &mut self.feed {
                Feed::Subscribing(task) => {
                    let (feed, results) = task.await;
                    Event::Subscribed(feed, results)
                }
                Feed::Ready(feed) if wants_record => Event::Tail(feed.next().await),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            sent = self.writing.send(output), if sends => Event::Wrote(sent),
            () = self.publishes.completed(completions), if self.publishes.in_flight() > 0 => Event::Completed,
            event = input => event,
            () = until(slow) => Event::SlowPacket,
            event = feed => event,
            change = self.entry.change(wants_record) => Event::Client(change),
            () = room, if no_room => Event::Room,
            () = until(deadline) => Event::Clock,
            () = lost(self.claim.as_ref()) => Event::TakenOver,
            () = self.shared.shutdown.begun(), if !shutting_down => Event::Shutdown,
            () = until(self.leave_at) => Event::Leave,
            () = self.shared.shutdown.drained(), if shutting_down => Event::Drained,
        }
    }

    fn handle(&mut self, event: Event, completions: &mut Vec<Completion>) {
        let now = self.shared.clock.now();
        match event {
            Event::Read(Ok(0)) => self.session.lost(now),
            Event::Read(Ok(_)) | Event::Wrote(Ok(0)) | Event::Memory(true) => {}
            Event::Memory(false) => self.session.overtaxed(Close::NoMemory, now),
            Event::SlowPacket => self.session.overtaxed(Close::SlowPacket, now),
            Event::Read(Err(_)) | Event::Wrote(Err(_)) => self.session.abort(now),
            Event::Drained => {
                self.drained = true;
                self.parked = None;
                self.session.abort(now);
            }
            Event::Wrote(Ok(bytes)) => self.session.sent(bytes, now),
            Event::Completed => completions.drain(..).for_each(|completion| self.completed(&completion)),
            Event::Room => {
                if let Some(publish) = self.parked.take() {
                    self.hand_over(publish);
                }
            }
            Event::Tail(event) => self.deliver(event),
            Event::Subscribed(feed, results) => {
                self.feed = Feed::Ready(feed);
                self.session.subscribed(&results, now);
            }
            Event::Client(Change::Known(admit, result)) => self.known(admit, result),
            Event::Client(Change::Revoked) => self.session.revoked(now),
            Event::Client(Change::Paced) => self.entry.pace(),
            Event::Client(Change::Configured) => self.deliver_desired(),
            Event::Clock => self.session.tick(now),
            Event::TakenOver => self.session.taken_over(now),
            Event::Shutdown => {
                self.shutting_down = true;
                self.leave_at =
                    Some(Instant::now() + leave_in(self.id, &self.shared.limits, &self.shared.shutdown));
            }
            Event::Leave => {
                self.leave_at = None;
                self.session.shut_down(now);
            }
        }
    }

    fn completed(&mut self, completion: &Completion) {
        let now = self.shared.clock.now();
        match &completion.result {
            Ok(_) => self.session.stored(completion.token, now),
            Err(failure) => {
                tracing::debug!(reason = failure.reason(), "a publish was not confirmed");
                self.session.failed(completion.token, now);
            }
        }
    }

    /// Gives the session one event of the tail and what else is already there.
    fn deliver(&mut self, first: TailEvent) {
        let mut event = first;
        for _ in 0..RECORDS_PER_TURN {
            self.deliver_one(event);
            let Feed::Ready(feed) = &mut self.feed else { return };
            if !self.session.wants_record() {
                return;
            }
            match feed.next().now_or_never() {
                Some(next) => event = next,
                None => return,
            }
        }
        self.deliver_one(event);
    }

    fn deliver_one(&mut self, event: TailEvent) {
        match event {
            TailEvent::Delivery(delivery) => {
                let address = &delivery.record.address;
                if self.entry.may(Right::Receive, address) {
                    self.session.deliver(&inbound(&delivery.record), self.shared.clock.now());
                } else {
                    self.shared.metrics.dropped("Denied");
                }
            }
            TailEvent::Gap(gap) => {
                self.shared.metrics.gap();
                let (topic, partition, from, to) = (&gap.topic, gap.partition, gap.from, gap.to);
                tracing::warn!(%topic, partition, from, to, "records left retention before they were read");
            }
        }
    }

    fn deliver_desired(&mut self) {
        let Some(news) = self.entry.news() else { return };
        let Some(admission) = self.entry.admission() else { return };
        let address = desired::address(admission.principal());
        self.session.deliver(&document(&address, &news), self.shared.clock.now());
    }

    /// Writes the Will; its fate is counted. The connection's own handle may be one that failed.
    async fn publish_will(&mut self) {
        let Some(will) = self.will.take() else { return };
        let outcome = match self.route(*will) {
            Ok((route, record)) => match self.shared.publisher.publish_once(&route, &record).await {
                Ok(Ok(_)) => "Stored",
                Ok(Err(failure)) => failure.reason(),
                Err(error) => error.reason(),
            },
            Err(refusal) => refusal.reason(),
        };
        self.shared.metrics.will(outcome);
    }
}

async fn lost(claim: Option<&Claim>) {
    match claim {
        Some(claim) => claim.lost().await,
        None => std::future::pending().await,
    }
}
