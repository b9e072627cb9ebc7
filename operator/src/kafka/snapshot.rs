//! What one platform's sweep found, as controllers read it. Pure.

use super::error::Failure;
use super::fleets::Fleets;
use super::plan;
use super::rights::Rights;
use super::survey::Survey;
use super::wire::voters::{Exchange, Next};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// What one platform's sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether Kafka answers.
    pub health: Health,
    /// Where it answered last.
    pub bootstrap: String,
    /// The brokers that are alive.
    pub brokers: BTreeSet<i32>,
    /// Brokers that should hold copies of a topic and are not there.
    pub away: BTreeSet<i32>,
    /// Kafka's own name for the cluster.
    pub cluster_id: Option<String>,
    /// What is not well with the platform's own topics, or with writing `tg-directory`.
    pub directory: Option<Failure>,
    /// Whether the directory holds what it should.
    pub directory_written: bool,
    /// What the directory holds of fleets; nothing before it was read.
    pub fleets: Option<Arc<Fleets>>,
    /// Topics by the name of their resource.
    pub topics: BTreeMap<String, TopicState>,
    /// A declared topic, or the platform's own, that takes no acknowledged records for want of replicas in sync.
    pub short: Option<String>,
    /// Which broker may be away, where a controller asked for it.
    pub survey: Option<Surveyed>,
    /// How far the exchange of a voter is that a controller asked for.
    pub exchange: Option<Exchanged>,
    /// The level of Kafka's metadata, or why it is not raised; absent: nobody wants a certain one.
    pub metadata: Option<Result<i16, Failure>>,
    /// The rights that Kafka has, where a controller wants any.
    pub rights: Rights,
}

impl Snapshot {
    /// Whether `next` says anything else of the platform; its Topics are looked at one by one.
    pub fn says_else_of_the_platform(&self, next: &Self) -> bool {
        self.health != next.health
            || self.brokers != next.brokers
            || self.away != next.away
            || self.bootstrap != next.bootstrap
            || self.cluster_id != next.cluster_id
            || self.directory != next.directory
            || self.directory_written != next.directory_written
            || self.short != next.short
            || self.survey != next.survey
            || self.exchange != next.exchange
            || self.metadata != next.metadata
            || self.rights != next.rights
    }
}

/// One look at every partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// What whoever asked knew before: where that has changed, the survey says nothing any more.
    pub about: u64,
    /// When it began.
    pub began: Instant,
    /// What was found.
    pub found: Result<Survey, Failure>,
}

/// How far the exchange of a voter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanged {
    /// What was asked for.
    pub wanted: Exchange,
    /// What is left to do, or why nothing could be done.
    pub left: Result<Next, Failure>,
}

/// Whether Kafka answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Nobody could tell yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It has not answered for a while.
    Down(Failure),
}

/// One topic, as far as the sweep knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// How it is in Kafka.
    pub outcome: Outcome,
    /// Filters that an older Topic has, with its name.
    pub lost: Vec<(String, String)>,
}

/// How one topic is in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is about to be created, as soon as enough brokers are there.
    Waiting,
    /// Kafka did not do what was asked.
    Failed(Failure),
    /// It is there.
    Present {
        /// As Kafka has it.
        topic: plan::Topic,
        /// Whether gateways are told about it.
        listed: bool,
    },
    /// Others made it, and nobody said that it is to be taken over.
    Foreign,
    /// It is not there, and should not be.
    Absent,
}
