//! What to do about nodes that do not answer: a function of what was seen, of the cluster as it is, and of the time. Pure.
//!
//! Two steps that never mix. First the record: which nodes are out. Any replica may put a node in, only the leader takes one
//! off, and the record's version sees to it that the brake holds for all replicas together. Then the levers: labels of
//! nodes and pods, deletions follow the record, label first. Advertisements name the nodes' label once and for all, so
//! that nothing of MetalLB, which may be on the dead node itself, has to be written when a node dies.

use super::health::Health;
use super::model::{Action, Advert, Announcers, Decision, Held, Ill, Owner, PodRef, Role, State, World};
use super::record::{Claim, Record, brake};
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What is out without a reason for so long is put back. Before that the record of it may be on its way.
pub const STRAY: Duration = Duration::from_secs(2);

/// One replica's mind.
#[derive(Clone, Debug, Default)]
pub struct Decider {
    /// What it has seen.
    pub health: Health,
    /// Since when something is out without a reason.
    strays: BTreeMap<Stray, Instant>,
}

/// What is out without a reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stray {
    /// A pod, by its uid.
    Pod(String),
    /// A node, by its name.
    Node(String),
}

impl Decider {
    /// A mind that has seen nothing yet, on this node.
    pub fn new(own: Option<String>) -> Self {
        Self { health: Health::new(own), strays: BTreeMap::new() }
    }

    /// Decides. `wall` is for people only.
    pub fn decide(&mut self, now: Instant, wall: Timestamp, world: &World) -> Decision {
        self.health.see(now, &world.record, world.nodes.keys());
        let mut decision = Decision::default();
        self.judge(now, wall, world, &mut decision);
        let strays = std::mem::take(&mut self.strays);
        self.marks(now, world, &strays, &mut decision.actions);
        self.labels(now, world, &strays, &mut decision.actions);
        adverts(world, &mut decision);
        self.replacements(now, world, &mut decision.actions);
        decision
    }

    fn state(&self, node: &str, now: Instant) -> State {
        self.health.state(node, now)
    }

    fn is_down(&self, node: &str, now: Instant) -> bool {
        self.state(node, now) >= State::Suspect
    }

    /// Who is out, and who shall be.
    fn judge(&mut self, now: Instant, wall: Timestamp, world: &World, decision: &mut Decision) {
        let mut record = Record { version: world.record.version.clone(), ..Record::default() };
        let mut released = Vec::new();
        for (node, claim) in &world.record.claims {
            let stays = world.wanted() && world.nodes.contains_key(node) && !self.health.has_returned(node);
            if stays || !world.leads {
                record.claims.insert(node.clone(), claim.clone());
            } else {
                released.push(node.clone());
            }
        }
        let mut down: Vec<_> = world.nodes.keys().filter(|node| self.is_down(node, now)).collect();
        // What is certain goes first; then one order for all replicas.
        down.sort_by_key(|node| (std::cmp::Reverse(self.state(node, now)), *node));
        let allowed = brake(world.nodes.len());
        let mut claimed = Vec::new();
        for node in down {
            let state = self.state(node, now);
            let evidence = self.health.evidence(node, now);
            let ill = Ill { state, since: None, evidence: evidence.clone(), out: false };
            decision.ill.insert(node.clone(), ill);
            if record.claims.contains_key(node) || !world.wanted() {
                continue;
            }
            if !self.has_witness(node, now, world) {
                decision.held.insert(node.clone(), Held::NoWitness);
            } else if record.claims.len() >= allowed {
                decision.held.insert(node.clone(), Held::Brake);
            } else if world.leads || !self.health.is_spent(node) {
                let claim = Claim { by: world.identity.clone(), since: wall, evidence };
                record.claims.insert(node.clone(), claim);
                claimed.push(node.clone());
            }
        }
        for (node, claim) in &world.record.claims {
            if !world.nodes.contains_key(node) {
                continue;
            }
            let state = self.state(node, now).max(State::Well);
            let evidence = match decision.ill.get(node) {
                Some(ill) => ill.evidence.clone(),
                None => "it answers again and is watched for 10 s".to_owned(),
            };
            let ill = Ill { state, since: Some(claim.since), evidence, out: true };
            decision.ill.insert(node.clone(), ill);
        }
        if record.claims != world.record.claims {
            decision.actions.push(Action::Record { record, claimed, released });
        }
    }

    /// Whether another node answers in full, and so the silence is not our own. Where there is no other that could, the
    /// API server is the witness: it has heard nothing of the node either.
    fn has_witness(&self, node: &str, now: Instant, world: &World) -> bool {
        let mut others =
            world.nodes.keys().filter(|other| *other != node && world.own.as_ref() != Some(other)).peekable();
        if others.peek().is_none() {
            return self.state(node, now) == State::Dead;
        }
        others.any(|other| self.health.answers_fully(other))
    }

    /// Whether this replica pulls the levers of a node: it is out, does not answer us, and either we took it out or we
    /// lead.
    fn pulls(&self, node: &str, now: Instant, world: &World) -> bool {
        let claim = world.record.claims.get(node);
        claim.is_some_and(|claim| world.leads || claim.by == world.identity)
            && self.is_down(node, now)
            && world.nodes.contains_key(node)
    }

    /// Nodes that are out are marked: their addresses move, and nothing new starts on them.
    fn marks(
        &mut self,
        now: Instant,
        world: &World,
        old: &BTreeMap<Stray, Instant>,
        actions: &mut Vec<Action>,
    ) {
        for (name, node) in &world.nodes {
            let mark = |in_service| Action::Mark { node: name.clone(), uid: node.uid.clone(), in_service };
            if world.wanted() && self.pulls(name, now, world) {
                if node.in_service {
                    actions.push(mark(false));
                }
                continue;
            }
            // A node that this replica hears and another took out stays as that one left it.
            let out = world.wanted() && world.record.claims.contains_key(name);
            if !node.in_service
                && !out
                && self.waited(Stray::Node(name.clone()), now, old, name)
                && world.leads
            {
                actions.push(mark(true));
            }
        }
    }

    fn labels(
        &mut self,
        now: Instant,
        world: &World,
        old: &BTreeMap<Stray, Instant>,
        actions: &mut Vec<Action>,
    ) {
        for node in world.nodes.keys().filter(|node| self.pulls(node, now, world)) {
            let dead = self.state(node, now) == State::Dead;
            for pod in world.gateways_on(node).filter(|pod| pod.in_service && !pod.leaving) {
                let replaced = world.pods.iter().any(|other| {
                    other.is_sibling(pod)
                        && other.is_endpoint()
                        && !world.record.claims.contains_key(&other.node)
                        && !self.is_down(&other.node, now)
                });
                // A suspect keeps a Service's last endpoint: it may live. The dead do not.
                if dead || replaced {
                    actions.push(Action::Label { pod: PodRef::from(pod), in_service: false });
                }
            }
        }
        for pod in world.pods.iter().filter(|pod| pod.role == Role::Gateway && !pod.in_service) {
            let node = &pod.node;
            let out = world.record.claims.contains_key(node) || self.is_down(node, now);
            if pod.leaving || out && world.covers(pod) {
                continue;
            }
            let key = Stray::Pod(pod.uid.clone());
            if self.waited(key, now, old, node) && world.leads {
                actions.push(Action::Label { pod: PodRef::from(pod), in_service: true });
            }
        }
    }

    /// Whether something has been out without a reason for long enough to be put back.
    fn waited(&mut self, key: Stray, now: Instant, old: &BTreeMap<Stray, Instant>, node: &str) -> bool {
        let since = old.get(&key).copied().unwrap_or(now);
        self.strays.insert(key, since);
        now.duration_since(since) >= STRAY || self.health.has_released(node)
    }

    /// Pods of the dead that are out of their Services already. Whoever took a node out replaces its pods as well: when it
    /// is the leader's own, nobody leads for the length of a Lease.
    fn replacements(&self, now: Instant, world: &World, actions: &mut Vec<Action>) {
        let dead = |node: &&String| self.pulls(node, now, world) && self.state(node, now) == State::Dead;
        for node in world.nodes.keys().filter(dead) {
            let out = world.gateways_on(node).filter(|pod| !pod.in_service && !pod.leaving);
            actions.extend(out.map(|pod| Action::Replace { pod: pod.into() }));
        }
    }
}

/// Whose announcements are made, withdrawn, and from which nodes. None of it is urgent, so the leader does it.
fn adverts(world: &World, decision: &mut Decision) {
    let Some(adverts) = &world.adverts else { return };
    for (pool, used) in world.pools.iter().filter(|(_, used)| used.exists) {
        let over = |advert: &&Advert| advert.pools.contains(pool);
        let (foreign, ours): (Vec<_>, Vec<_>) =
            adverts.iter().filter(over).partition(|advert| advert.owner == Owner::Foreign);
        if !foreign.is_empty() {
            let names = foreign.iter().map(|one| format!("{} {}", one.kind, one.name));
            decision.defeated.insert(pool.clone(), names.collect());
        } else if used.referred && ours.is_empty() && world.leads {
            decision.actions.push(Action::Announce { pool: pool.clone(), from: announcers(used.failover) });
        }
    }
    if !world.leads {
        return;
    }
    for advert in adverts.iter().filter(|advert| advert.owner != Owner::Foreign) {
        // Beside an administrator's own, ours would only widen what is announced.
        let wanted = advert.pools.iter().any(|pool| {
            let referred = world.pools.get(pool).is_some_and(|used| used.referred && used.exists);
            referred && !decision.defeated.contains_key(pool)
        });
        let (name, uid) = (advert.name.clone(), advert.uid.clone());
        if advert.owner == Owner::Shared && !wanted {
            if !world.blind {
                decision.actions.push(Action::Withdraw { advert: name, uid });
            }
            continue;
        }
        let failover =
            advert.pools.iter().any(|pool| world.pools.get(pool).is_some_and(|used| used.failover));
        let from = announcers(failover);
        if advert.from != from {
            let version = advert.version.clone();
            decision.actions.push(Action::Select { advert: name, uid, version, from });
        }
    }
}

const fn announcers(failover: bool) -> Announcers {
    if failover { Announcers::InService } else { Announcers::All }
}
