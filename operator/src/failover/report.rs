//! What platforms say about failover: condition, ill nodes, Events. Pure.

use super::model::{Decision, Held, Ill, State as Taken};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_crds::platform::{NodeState, NodeStatus};
use tidegate_crds::{State, reasons};

/// A status names at most so many nodes.
const MAX_NODES: usize = 32;

/// Whether nodes are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Not yet: the cluster is being read.
    #[default]
    Starting,
    /// The operator has not the rights; the message says which.
    Forbidden(String),
    /// They are.
    Watching,
}

/// What is said about failover, for all platforms together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Whether nodes are watched.
    pub standing: Standing,
    /// How many nodes the cluster has.
    pub nodes: usize,
    /// Nodes that are not well, with when that began.
    pub ill: BTreeMap<String, (Ill, Timestamp)>,
    /// Why a node that does not answer is used all the same.
    pub held: BTreeMap<String, Held>,
    /// The advertisements that defeat ours, by pool.
    pub defeated: BTreeMap<String, BTreeSet<String>>,
    /// Why announcements cannot be read.
    pub adverts_unread: Option<String>,
}

/// An Event on every platform that has failover on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whether it is a Warning.
    pub warning: bool,
    /// A constant of [`reasons`].
    pub reason: &'static str,
    /// For people.
    pub text: String,
}

impl View {
    /// The view after a decision.
    #[must_use]
    pub fn after(&self, wall: Timestamp, nodes: usize, decision: &Decision) -> Self {
        let since = |node: &String, ill: &Ill| {
            let before = self.ill.get(node).filter(|(before, _)| before.state == ill.state);
            ill.since.or_else(|| before.map(|(_, since)| *since)).unwrap_or(wall)
        };
        let ill = decision.ill.iter().map(|(node, ill)| (node.clone(), (ill.clone(), since(node, ill))));
        Self {
            standing: Standing::Watching,
            nodes,
            ill: ill.collect(),
            held: decision.held.clone(),
            defeated: decision.defeated.clone(),
            adverts_unread: None,
        }
    }

    /// What a platform's condition `FailoverLimited` says.
    pub fn condition(&self, enabled: bool, pool: Option<&str>) -> (State, &'static str, String) {
        let limited = |reason, text: String| (State::True, reason, text);
        if !enabled {
            let text = "spec.failover.enabled is false: Kubernetes' own times apply when a node dies";
            return limited(reasons::FAILOVER_OFF, text.to_owned());
        }
        match &self.standing {
            Standing::Starting => {
                let text = "the operator has just started and reads the cluster".to_owned();
                return (State::Unknown, reasons::PROGRESSING, text);
            }
            Standing::Forbidden(text) => return limited(reasons::NODE_RIGHTS_MISSING, text.clone()),
            Standing::Watching => {}
        }
        if self.nodes < 2 {
            let text = "the cluster has one node: nothing can take over from it".to_owned();
            return limited(reasons::TOO_FEW_NODES, text);
        }
        if let Some(pool) = pool {
            if let Some(text) = &self.adverts_unread {
                return limited(reasons::NODE_RIGHTS_MISSING, text.clone());
            }
            if let Some(names) = self.defeated.get(pool) {
                let names = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let text = format!(
                    "{names} announces pool {pool} from every node that it selects, whatever Tidegate knows of it: addresses move when MetalLB itself notices that a node is gone. Delete it, and Tidegate announces the pool by an L2Advertisement of its own"
                );
                return limited(reasons::FOREIGN_ADVERTISEMENT, text);
            }
        }
        let held = |held: Held| {
            let names = self.held.iter().filter(|(_, why)| **why == held).map(|(node, _)| node.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let braked = held(Held::Brake);
        if !braked.is_empty() {
            let out = self.ill.iter().filter(|(_, (ill, _))| ill.out).map(|(node, _)| node.as_str());
            let out = out.collect::<Vec<_>>().join(", ");
            let text = format!(
                "{braked} does not answer and is used all the same: of {} nodes no more than are out already ({out}) may be. Bring them back; meanwhile Kubernetes' own times apply",
                self.nodes
            );
            return limited(reasons::BRAKE_ENGAGED, text);
        }
        if self.nodes == 2 {
            let text = "with two nodes no third can tell which of them is cut off: one is taken out of use only when its lease has stopped too, seconds later than with three".to_owned();
            return limited(reasons::TOO_FEW_NODES, text);
        }
        (State::False, reasons::FAILOVER_ON, String::new())
    }

    /// What a platform's status says about nodes.
    pub fn nodes(&self, enabled: bool) -> Vec<NodeStatus> {
        let status = |(name, (ill, since)): (&String, &(Ill, Timestamp))| NodeStatus {
            name: name.clone(),
            state: match ill.state {
                Taken::Dead => NodeState::Dead,
                Taken::Suspect => NodeState::Suspect,
                Taken::Well | Taken::Unknown => NodeState::Recovering,
            },
            since: Time(*since),
            evidence: ill.evidence.clone(),
        };
        self.ill.iter().filter(|_| enabled).map(status).take(MAX_NODES).collect()
    }

    /// What happened since `before`.
    pub fn news(&self, before: &Self) -> Vec<News> {
        let mut all = Vec::new();
        for (node, (ill, _)) in &self.ill {
            let was = before.ill.get(node).map(|(ill, _)| ill.state);
            if was == Some(ill.state) {
                continue;
            }
            let text = match ill.state {
                Taken::Suspect => format!("{node} does not answer: {}", ill.evidence),
                Taken::Dead => format!("{node} is dead, its gateways are replaced: {}", ill.evidence),
                Taken::Well | Taken::Unknown => continue,
            };
            let reason = if ill.state == Taken::Dead { reasons::NODE_DEAD } else { reasons::NODE_SUSPECT };
            all.push(News { warning: true, reason, text });
        }
        for (node, _) in before.ill.iter().filter(|(node, _)| !self.ill.contains_key(*node)) {
            let text = format!("{node} answers and is used again");
            all.push(News { warning: false, reason: reasons::NODE_RETURNED, text });
        }
        for (node, why) in self.held.iter().filter(|(node, why)| before.held.get(*node) != Some(why)) {
            let text = match why {
                Held::Brake => {
                    format!("{node} is used all the same: as many nodes as may be are out already")
                }
                Held::NoWitness => {
                    format!("{node} is used all the same: no other node answers, the fault may be ours")
                }
            };
            all.push(News { warning: true, reason: reasons::BRAKE_ENGAGED, text });
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ill(state: Taken, out: bool) -> (Ill, Timestamp) {
        let ill = Ill { state, since: None, evidence: "3 of 3 targets timed out".to_owned(), out };
        (ill, Timestamp::UNIX_EPOCH)
    }

    fn watching(nodes: usize) -> View {
        View { standing: Standing::Watching, nodes, ..View::default() }
    }

    #[test]
    fn the_condition_says_what_limits_failover_and_what_to_do() {
        let says = |view: &View, enabled| {
            let (state, reason, text) = view.condition(enabled, Some("devices"));
            (state, reason, text)
        };
        assert_eq!(says(&watching(3), true).0, State::False);
        assert_eq!(says(&watching(3), false).1, "FailoverOff");
        assert_eq!(says(&View::default(), true).0, State::Unknown);
        assert_eq!(says(&watching(1), true).1, "TooFewNodes");
        assert!(says(&watching(2), true).2.contains("lease"));
        let forbidden =
            View { standing: Standing::Forbidden("no right to list nodes".to_owned()), ..watching(3) };
        assert_eq!(says(&forbidden, true).1, "NodeRightsMissing");
        let names: BTreeSet<_> = ["L2Advertisement theirs".to_owned()].into();
        let defeated = View { defeated: [("devices".to_owned(), names)].into(), ..watching(3) };
        let (_, reason, text) = says(&defeated, true);
        assert!(reason == "ForeignAdvertisement" && text.starts_with("L2Advertisement theirs"), "{text}");
        assert_eq!(defeated.condition(true, Some("other")).0, State::False);
        assert_eq!(defeated.condition(true, None).0, State::False);
    }

    #[test]
    fn the_brake_is_told_with_the_nodes_that_are_out() {
        let mut view = watching(4);
        view.ill.insert("node1".to_owned(), ill(Taken::Dead, true));
        view.ill.insert("node2".to_owned(), ill(Taken::Suspect, false));
        view.held.insert("node2".to_owned(), Held::Brake);
        let (state, reason, text) = view.condition(true, None);
        assert_eq!((state, reason), (State::True, "BrakeEngaged"));
        assert!(text.starts_with("node2 does not answer") && text.contains("(node1)"), "{text}");
    }

    #[test]
    fn each_transition_is_told_once() {
        let calm = watching(3);
        let mut suspect = watching(3);
        suspect.ill.insert("node2".to_owned(), ill(Taken::Suspect, true));
        let mut dead = watching(3);
        dead.ill.insert("node2".to_owned(), ill(Taken::Dead, true));
        let mut recovering = watching(3);
        recovering.ill.insert("node2".to_owned(), ill(Taken::Well, true));
        let told = |after: &View, before: &View| {
            after.news(before).into_iter().map(|news| news.reason).collect::<Vec<_>>()
        };
        assert_eq!(told(&suspect, &calm), ["NodeSuspect"]);
        assert_eq!(told(&suspect, &suspect), Vec::<&str>::new());
        assert_eq!(told(&dead, &suspect), ["NodeDead"]);
        assert_eq!(told(&recovering, &dead), Vec::<&str>::new());
        assert_eq!(told(&calm, &recovering), ["NodeReturned"]);
    }

    #[test]
    fn since_stays_as_long_as_the_state_does() {
        let decision = |state| Decision {
            ill: [("node2".to_owned(), ill(state, false).0)].into(),
            ..Decision::default()
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = View::default().after(at(1), 3, &decision(Taken::Suspect));
        let second = first.after(at(2), 3, &decision(Taken::Suspect));
        assert_eq!(second.nodes(true)[0].since, Time(at(1)));
        let third = second.after(at(3), 3, &decision(Taken::Dead));
        assert_eq!(
            (third.nodes(true)[0].state, &third.nodes(true)[0].since),
            (NodeState::Dead, &Time(at(3)))
        );
        assert!(third.nodes(false).is_empty());
    }
}
