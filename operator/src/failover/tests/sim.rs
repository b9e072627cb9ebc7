//! A cluster in memory with several replicas of the operator: nodes that answer or do not, leases, pods, announcements,
//! the record. Time passes in rounds.

use crate::failover::decide::Decider;
use crate::failover::health::{Answer, Outcome, Round};
use crate::failover::model::{Action, Advert, Announcers, Decision, Node, Owner, Pod, Pool, Role, World};
use crate::failover::record::Record;
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub const STEP: Duration = Duration::from_millis(300);
/// How often kubelets renew their leases.
const RENEW: Duration = Duration::from_secs(5);

/// One replica of the operator.
#[derive(Clone)]
pub struct Replica {
    pub identity: String,
    pub own: Option<String>,
    pub leads: bool,
    /// Whether it runs and reaches the API server.
    pub works: bool,
    pub late: Duration,
    /// The nodes that it does not reach, whatever they are.
    pub cut_from: BTreeSet<String>,
    /// Whether it sees the cluster as it was one round before.
    pub lags: bool,
    pub decider: Decider,
    pub last: Decision,
    record: Record,
}

/// What was done, by whom.
#[derive(Clone, Debug)]
pub struct Deed {
    pub by: String,
    pub action: Action,
}

#[derive(Clone)]
pub struct Sim {
    pub now: Instant,
    pub world: World,
    before: World,
    /// Nodes that are off.
    pub off: BTreeSet<String>,
    /// Nodes whose kubelet renews nothing although they answer, and those that renew although they do not.
    pub frozen: BTreeSet<String>,
    pub renewed: BTreeMap<String, (u32, Instant)>,
    pub replicas: Vec<Replica>,
    pub deeds: Vec<Deed>,
    version: u64,
}

pub fn node(number: usize) -> String {
    format!("node{number}")
}

fn address(node: usize, pod: usize) -> SocketAddr {
    let (node, pod) = (u8::try_from(node).unwrap(), u8::try_from(pod).unwrap());
    SocketAddr::new([10, 244, node, pod].into(), 9100)
}

impl Sim {
    /// So many nodes with replicas of the operator on the first two, the first leading; a gateway `mqtt` with a pod on each
    /// of the nodes in `pods`; a pool that platforms refer to, announced by us.
    pub fn new(nodes: usize, pods: &[usize]) -> Self {
        let start = Instant::now();
        let all = (1..=nodes).map(|number| {
            (
                node(number),
                Node { uid: format!("uid-{number}"), in_service: true, address: None, kubelet: 10_250 },
            )
        });
        let pool = Pool { exists: true, referred: true, failover: true };
        let advert = Advert {
            kind: "L2Advertisement",
            name: "tidegate.devices".to_owned(),
            uid: "advert".to_owned(),
            version: "1".to_owned(),
            owner: Owner::Shared,
            pools: ["devices".to_owned()].into(),
            from: Announcers::InService,
        };
        let world = World {
            nodes: all.collect(),
            pools: [("devices".to_owned(), pool)].into(),
            adverts: Some(vec![advert]),
            platforms: [(("iot".to_owned(), "plant".to_owned()), true)].into(),
            ..World::default()
        };
        let replica = |number: usize| Replica {
            identity: format!("operator-{number}"),
            own: Some(node(number)),
            leads: number == 1,
            works: true,
            late: Duration::ZERO,
            cut_from: BTreeSet::new(),
            lags: false,
            decider: Decider::new(Some(node(number))),
            last: Decision::default(),
            record: Record::default(),
        };
        let mut sim = Self {
            now: start,
            before: world.clone(),
            world,
            off: BTreeSet::new(),
            frozen: BTreeSet::new(),
            renewed: (1..=nodes).map(|number| (node(number), (0, start))).collect(),
            replicas: (1..=nodes.min(2)).map(replica).collect(),
            deeds: Vec::new(),
            version: 1,
        };
        for (index, number) in pods.iter().enumerate() {
            sim.add_pod("mqtt", *number, index);
        }
        sim
    }

    pub fn add_pod(&mut self, gateway: &str, number: usize, index: usize) {
        let pod = Pod {
            namespace: "iot".to_owned(),
            name: format!("{gateway}-{index}"),
            uid: format!("uid-{gateway}-{index}"),
            node: node(number),
            role: Role::Gateway,
            platform: "plant".to_owned(),
            instance: gateway.to_owned(),
            target: Some(address(number, 10 + self.world.pods.len())),
            in_service: true,
            ready: true,
            leaving: false,
        };
        self.world.pods.push(pod);
        self.before = self.world.clone();
    }

    /// No replica reaches this node any more.
    pub fn cut(&mut self, number: usize) {
        for replica in &mut self.replicas {
            replica.cut_from.insert(node(number));
        }
    }

    /// Every replica reaches every node that is on.
    pub fn mend(&mut self) {
        for replica in &mut self.replicas {
            replica.cut_from.clear();
        }
    }

    /// Lets time pass, round by round; `check` sees each deed in the cluster as it was before and as it is after it.
    pub fn run(&mut self, time: Duration, mut check: impl FnMut(&Self, &Deed)) {
        let end = self.now + time;
        while self.now < end {
            self.step(&mut check);
        }
    }

    pub fn pass(&mut self, time: Duration) {
        self.run(time, |_, _| {});
    }

    /// Runs until something holds, and says how long it took.
    pub fn until(&mut self, limit: Duration, holds: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now;
        while !holds(self) {
            assert!(self.now - began < limit, "not within {limit:?}: {:?}", self.deeds);
            self.step(&mut |_, _| {});
        }
        self.now - began
    }

    fn step(&mut self, check: &mut impl FnMut(&Self, &Deed)) {
        self.now += STEP;
        let now = self.now;
        for (name, (count, at)) in &mut self.renewed {
            let renews = !self.off.contains(name) && !self.frozen.contains(name);
            if renews && now - *at >= RENEW {
                (*count, *at) = (*count + 1, now);
            }
        }
        let snapshot = self.world.clone();
        for index in 0..self.replicas.len() {
            self.turn(index, check);
        }
        self.before = snapshot;
    }

    fn turn(&mut self, index: usize, check: &mut impl FnMut(&Self, &Deed)) {
        let now = self.now;
        let round = self.round(index);
        let source = if self.replicas[index].lags { &self.before } else { &self.world };
        let mut seen = source.clone();
        let replica = &mut self.replicas[index];
        if !replica.works || replica.own.as_ref().is_some_and(|own| self.off.contains(own)) {
            return;
        }
        replica.decider.health.round(now, &round);
        for (name, (count, at)) in &self.renewed {
            replica.decider.health.lease(name, &count.to_string(), RENEW, *at);
        }
        for name in replica.decider.health.doubtful(now) {
            let (count, _) = self.renewed[&name];
            replica.decider.health.lease_checked(&name, &count.to_string(), RENEW, now);
        }
        if replica.record.is_older_than(&seen.record) {
            replica.record = seen.record.clone();
        }
        seen.record = replica.record.clone();
        seen.own.clone_from(&replica.own);
        seen.identity.clone_from(&replica.identity);
        seen.leads = replica.leads;
        let decision = replica.decider.decide(now, Timestamp::UNIX_EPOCH, &seen);
        replica.last = decision.clone();
        for action in decision.actions {
            let before = self.clone();
            if self.act(index, &action) {
                let by = self.replicas[index].identity.clone();
                let deed = Deed { by, action };
                check(&before, &deed);
                self.deeds.push(deed);
            }
        }
    }

    fn round(&self, index: usize) -> Round {
        let replica = &self.replicas[index];
        let mut answers = Vec::new();
        for (number, name) in (1..).zip(self.world.nodes.keys()) {
            if replica.own.as_ref() == Some(name) {
                continue;
            }
            let silent = self.off.contains(name) || replica.cut_from.contains(name);
            let outcome = |alive| if silent { Outcome::TimedOut } else { alive };
            let pods = self.world.pods.iter().filter(|pod| pod.node == *name && !pod.leaving);
            let pods = pods.filter_map(|pod| pod.target).map(|target| (target, Outcome::Answered));
            for (target, alive) in pods.chain([(address(number, 1), Outcome::Refused)]) {
                answers.push(Answer { node: name.clone(), target, outcome: outcome(alive) });
            }
        }
        Round { late: replica.late, answers }
    }

    /// As the API server would. Says whether it was done.
    fn act(&mut self, index: usize, action: &Action) -> bool {
        self.version += 1;
        let version = self.version.to_string();
        match action {
            Action::Record { record, .. } => {
                let fresh = record.version == self.world.record.version;
                if fresh {
                    self.world.record = Record { claims: record.claims.clone(), version: Some(version) };
                    if let Action::Record { released, .. } = action {
                        let now = self.now;
                        for node in released {
                            self.replicas[index].decider.health.released(node, now);
                        }
                    }
                }
                self.replicas[index].record = self.world.record.clone();
                return fresh;
            }
            Action::Label { pod, in_service } => {
                let Some(one) = self.world.pods.iter_mut().find(|one| one.uid == pod.uid) else {
                    return false;
                };
                one.in_service = *in_service;
            }
            Action::Replace { pod } => {
                let Some(one) = self.world.pods.iter_mut().find(|one| one.uid == pod.uid) else {
                    return false;
                };
                one.leaving = true;
            }
            Action::Mark { node, uid, in_service } => {
                let Some(one) = self.world.nodes.get_mut(node).filter(|one| one.uid == *uid) else {
                    return false;
                };
                one.in_service = *in_service;
            }
            Action::Select { advert, version: read, from, .. } => {
                let all = self.world.adverts.iter_mut().flatten();
                let Some(one) = all.into_iter().find(|one| one.name == *advert && one.version == *read)
                else {
                    return false;
                };
                one.from = *from;
                one.version = version;
            }
            Action::Announce { .. } | Action::Withdraw { .. } => {}
        }
        true
    }

    pub fn pods_on(&self, number: usize) -> impl Iterator<Item = &Pod> {
        let name = node(number);
        self.world.pods.iter().filter(move |pod| pod.node == name)
    }

    /// The nodes that announce nothing.
    pub fn excluded(&self) -> BTreeSet<String> {
        let out = self.world.nodes.iter().filter(|(_, node)| !node.in_service);
        out.map(|(name, _)| name.clone()).collect()
    }

    pub fn out(&self) -> Vec<&str> {
        self.world.record.claims.keys().map(String::as_str).collect()
    }
}
