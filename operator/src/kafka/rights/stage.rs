//! When brokers begin to refuse whoever has no right: never before gateways have theirs, and never back. Pure.
//!
//! A Kafka that runs without an authorizer is closed in two rolls. With [`Stage::Granting`] brokers know rights and still
//! let everybody in: gateways are super users, so that no right that is on its way can shut them out, and a resource without
//! ACLs is anybody's. When every broker runs that and Kafka was seen to have all rights, [`Stage::Closed`] follows. A Kafka
//! that is made is closed from its first day: its gateways wait until their rights are there.
//!
//! The stage that was reached stands in the pods' template, on each pod, and in the platform's status, so that an operator
//! that starts anew goes on from there.

use super::{BROKER, GATEWAY, OPERATOR};
use std::fmt;

/// The pods' annotation with the stage that they run.
pub const ANNOTATION: &str = "tidegate.io/kafka-rights";

/// How brokers treat whoever has no right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// They let everybody in, and know rights already.
    Granting,
    /// They refuse.
    #[default]
    Closed,
}

impl Stage {
    /// What an annotation says; nothing for brokers that know no rights at all.
    pub fn read(text: Option<&String>) -> Option<Self> {
        [Self::Granting, Self::Closed].into_iter().find(|stage| text == Some(&stage.to_string()))
    }

    /// Brokers' settings.
    pub fn settings(self) -> [(&'static str, String); 3] {
        let users: &[&str] = match self {
            Self::Granting => &[BROKER, OPERATOR, GATEWAY],
            Self::Closed => &[BROKER, OPERATOR],
        };
        let users: Vec<_> = users.iter().map(|name| format!("User:{name}")).collect();
        [
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()),
            ("super.users", users.join(";")),
            ("allow.everyone.if.no.acl.found", (self == Self::Granting).to_string()),
        ]
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Granting => "granting",
            Self::Closed => "closed",
        })
    }
}

/// What is known about a Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Whether it was closed once, by whatever remembers it.
    pub closed: bool,
    /// Whether its pods' template is there.
    pub exists: bool,
    /// What each of its pods runs.
    pub pods: Vec<Option<Stage>>,
    /// How many pods there shall be.
    pub brokers: usize,
    /// Whether Kafka was seen to have all rights, a moment ago.
    pub proven: bool,
}

/// The stage that the pods' template shall have.
pub fn next(known: &Known) -> Stage {
    let all = |least| known.pods.iter().all(|pod| *pod >= Some(least));
    let whole = known.pods.len() >= known.brokers;
    let closed = known.closed
        // It is being made: nobody uses it yet.
        || !known.exists && all(Stage::Closed)
        || known.exists && known.proven && whole && all(Stage::Granting);
    if closed { Stage::Closed } else { Stage::Granting }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_stands_on_a_pod_is_read_again() {
        for stage in [Stage::Granting, Stage::Closed] {
            assert_eq!(Stage::read(Some(&stage.to_string())), Some(stage));
        }
        assert_eq!(Stage::read(Some(&"open".to_owned())), None);
        assert_eq!(Stage::read(None), None);
    }

    #[test]
    fn a_new_kafka_is_closed_from_its_first_day() {
        assert_eq!(next(&Known { brokers: 3, ..Known::default() }), Stage::Closed);
    }

    #[test]
    fn a_kafka_that_runs_open_gets_rights_first() {
        let open = Known { exists: true, pods: vec![None; 3], brokers: 3, ..Known::default() };
        assert_eq!(next(&open), Stage::Granting);
        // Whatever is known of its rights, a broker that knows none cannot have them.
        assert_eq!(next(&Known { proven: true, ..open.clone() }), Stage::Granting);
        let half = vec![Some(Stage::Granting), None, Some(Stage::Granting)];
        assert_eq!(next(&Known { proven: true, pods: half, ..open.clone() }), Stage::Granting);
        let ready = Known { pods: vec![Some(Stage::Granting); 3], ..open };
        assert_eq!(next(&ready), Stage::Granting, "no right was seen yet");
        assert_eq!(next(&Known { proven: true, ..ready.clone() }), Stage::Closed);
        let away = Known { pods: vec![Some(Stage::Granting); 2], proven: true, ..ready };
        assert_eq!(next(&away), Stage::Granting, "a broker is away");
    }

    /// What a template or a pod has: nothing, where brokers know no rights.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Runs(Option<Stage>);

    const CLOSED: Runs = Runs(Some(Stage::Closed));

    /// A platform whose operator may end, forget and start at any point, and whose pods restart one by one.
    #[derive(Clone, Debug)]
    struct World {
        template: Option<Runs>,
        pods: Vec<Option<Runs>>,
        remembered: bool,
        rights: bool,
        seen: bool,
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A whole pass, or one that ends before it writes.
        Pass { written: bool },
        /// A sweep writes rights and sees them, where the active controller knows any.
        Sweep { ended: bool },
        /// A pod is made anew from the template.
        Restart(usize),
        /// A pod is away for a while.
        Lose(usize),
        /// The operator starts anew and knows nothing.
        Crash,
        /// Somebody deletes the StatefulSet and leaves its pods.
        Orphan,
    }

    impl World {
        fn open() -> Self {
            Self {
                template: Some(Runs(None)),
                pods: vec![Some(Runs(None)); 3],
                remembered: false,
                rights: false,
                seen: false,
            }
        }

        fn take(&mut self, step: &Step) {
            match *step {
                Step::Pass { written } => {
                    let known = Known {
                        closed: self.remembered || self.template == Some(CLOSED),
                        exists: self.template.is_some(),
                        pods: self.pods.iter().flatten().map(|runs| runs.0).collect(),
                        brokers: 3,
                        proven: self.seen,
                    };
                    let stage = next(&known);
                    if written {
                        self.template = Some(Runs(Some(stage)));
                        self.remembered |= stage == Stage::Closed;
                    }
                }
                Step::Sweep { ended } => {
                    // Whoever has the controllers' majority without an authorizer refuses.
                    let knows = self.pods.iter().flatten().filter(|runs| runs.0.is_some()).count() == 3;
                    self.rights |= knows && !ended;
                    self.seen = self.rights;
                }
                Step::Restart(pod) => self.pods[pod % 3] = self.template,
                Step::Lose(pod) => self.pods[pod % 3] = None,
                Step::Crash => {
                    self.seen = false;
                    self.remembered = self.pods.iter().all(|pod| *pod == Some(CLOSED));
                }
                Step::Orphan => self.template = None,
            }
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<bool>().prop_map(|written| Step::Pass { written }),
            4 => any::<bool>().prop_map(|ended| Step::Sweep { ended }),
            6 => any::<usize>().prop_map(Step::Restart),
            1 => any::<usize>().prop_map(Step::Lose),
            1 => Just(Step::Crash),
            1 => Just(Step::Orphan),
        ]
    }

    proptest! {
        #[test]
        fn no_broker_of_a_kafka_that_ran_open_refuses_before_gateways_have_their_rights(
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut world = World::open();
            for step in &steps {
                // A StatefulSet and all its pods that are gone together are a Kafka that nobody uses.
                let ends = match step {
                    Step::Orphan | Step::Lose(_) => true,
                    Step::Restart(_) => world.template.is_none(),
                    _ => false,
                };
                if ends && world.pods.iter().flatten().count() <= 1 {
                    continue;
                }
                world.take(step);
                let refuses = world.pods.contains(&Some(CLOSED));
                prop_assert!(!refuses || world.rights, "{world:?}");
            }
        }

        #[test]
        fn a_kafka_that_is_closed_stays_closed(steps in proptest::collection::vec(step(), 0..60)) {
            let mut world = World::open();
            world.template = Some(CLOSED);
            world.pods = vec![Some(CLOSED); 3];
            world.rights = true;
            world.remembered = true;
            for step in &steps {
                world.take(step);
                prop_assert!(world.template.is_none_or(|template| template == CLOSED), "{world:?}");
            }
        }

        #[test]
        fn an_open_kafka_is_closed_in_the_end(steps in proptest::collection::vec(step(), 0..40)) {
            let mut world = World::open();
            for step in &steps {
                world.take(step);
            }
            let settle = [Step::Pass { written: true }, Step::Restart(0), Step::Restart(1), Step::Restart(2), Step::Sweep { ended: false }];
            for _ in 0..3 {
                for step in &settle {
                    world.take(step);
                }
            }
            prop_assert_eq!(world.pods, vec![Some(CLOSED); 3]);
        }
    }
}
