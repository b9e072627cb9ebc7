//! What must change for Kafka to have the rights that it shall have. Pure.

use super::acl::Acl;
use std::collections::BTreeSet;

/// How many rights a sentence names.
const NAMED: usize = 4;

/// What must be done, in this order: whoever has a right before and after has it all the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// ACLs to make; those that deny first.
    pub create: Vec<Acl>,
    /// ACLs to remove, once all of the others are there; those that allow first.
    pub delete: Vec<Acl>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }

    /// For people who hear that somebody else changed rights in Kafka.
    pub fn repair(&self) -> String {
        let mut parts = Vec::new();
        for (what, acls) in
            [("missing, and made again", &self.create), ("not declared, and removed", &self.delete)]
        {
            if acls.is_empty() {
                continue;
            }
            let named: Vec<_> = acls.iter().take(NAMED).map(ToString::to_string).collect();
            let more =
                if acls.len() > NAMED { format!("; and {} more", acls.len() - NAMED) } else { String::new() };
            parts.push(format!("{what}: {}{more}", named.join("; ")));
        }
        format!("rights in Kafka were not as declared: {}", parts.join(". "))
    }
}

/// Plans what makes `have` as `want`. ACLs that nobody declared go, whoever made them: in a closed Kafka they would let in
/// somebody else than is declared.
pub fn plan(want: &BTreeSet<Acl>, have: &BTreeSet<Acl>) -> Plan {
    let mut delete: Vec<_> = have.difference(want).cloned().collect();
    delete.reverse();
    Plan { create: want.difference(have).cloned().collect(), delete }
}

#[cfg(test)]
mod tests {
    use super::super::acl::{Resource, kind, operation, pattern, permission};
    use super::super::wanted::wanted;
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;

    /// Whether Kafka lets `who` do this to a topic when it has these ACLs, as its authorizer decides.
    fn lets(acls: &BTreeSet<Acl>, who: &str, doing: i8, topic: &str) -> bool {
        let about = |acl: &&Acl| {
            let name = &acl.resource.name;
            let named = match acl.resource.pattern {
                pattern::PREFIXED => topic.starts_with(name),
                _ => name == topic || name == "*",
            };
            named
                && acl.resource.kind == kind::TOPIC
                && (acl.principal == format!("User:{who}") || acl.principal == "User:*")
        };
        let mut allowed = false;
        for acl in acls.iter().filter(about) {
            let same = acl.operation == doing || acl.operation == operation::ALL;
            let brings =
                doing == operation::DESCRIBE && [operation::READ, operation::WRITE].contains(&acl.operation);
            if acl.permission == permission::DENY && same {
                return false;
            }
            allowed |= acl.permission == permission::ALLOW && (same || brings);
        }
        allowed
    }

    fn any_acl() -> impl Strategy<Value = Acl> {
        let who = prop_oneof![Just("gateway"), Just("app-a"), Just("*")];
        let name = prop_oneof![Just("telemetry"), Just("tg-directory"), Just("*"), Just("t")];
        let doing = prop_oneof![
            Just(operation::READ),
            Just(operation::WRITE),
            Just(operation::DESCRIBE),
            Just(operation::ALL)
        ];
        (who, name, doing, any::<bool>(), any::<bool>()).prop_map(|(who, name, doing, literal, allow)| {
            let resource = if literal || name == "*" {
                Resource::literal(kind::TOPIC, name)
            } else {
                Resource::beginning(kind::TOPIC, name)
            };
            if allow { Acl::allow(who, doing, resource) } else { Acl::deny(who, doing, resource) }
        })
    }

    /// What Kafka has after the first `steps` single changes: an operator that ends in the middle leaves exactly that.
    fn after(have: &BTreeSet<Acl>, plan: &Plan, steps: usize) -> BTreeSet<Acl> {
        let mut now = have.clone();
        for (number, acl) in plan.create.iter().chain(&plan.delete).enumerate().take(steps) {
            if number < plan.create.len() {
                now.insert(acl.clone());
            } else {
                now.remove(acl);
            }
        }
        now
    }

    const CASES: [(&str, i8, &str); 8] = [
        ("gateway", operation::READ, "telemetry"),
        ("gateway", operation::WRITE, "telemetry"),
        ("gateway", operation::DESCRIBE, "telemetry"),
        ("gateway", operation::READ, "tg-directory"),
        ("gateway", operation::WRITE, "tg-directory"),
        ("app-a", operation::READ, "telemetry"),
        ("app-a", operation::WRITE, "telemetry"),
        ("app-a", operation::READ, "tg-directory"),
    ];

    proptest! {
        #[test]
        fn whoever_may_before_and_after_may_all_the_time_wherever_the_operator_ends(
            have in proptest::collection::btree_set(any_acl(), 0..8),
            more in proptest::collection::btree_set(any_acl(), 0..4),
            declared: bool,
            end: Index,
        ) {
            let mut want = more;
            if declared {
                want = wanted("", &[]);
            }
            let plan = plan(&want, &have);
            let steps = end.index(plan.create.len() + plan.delete.len() + 1);
            let now = after(&have, &plan, steps);
            for (who, doing, topic) in CASES {
                let before = lets(&have, who, doing, topic);
                let wanted = lets(&want, who, doing, topic);
                if before && wanted {
                    prop_assert!(lets(&now, who, doing, topic), "{who} {doing} {topic} after {steps} steps: {now:?}");
                }
            }
        }

        #[test]
        fn a_plan_carried_out_from_wherever_the_last_one_ended_leaves_nothing_to_do(
            have in proptest::collection::btree_set(any_acl(), 0..8),
            end: Index,
        ) {
            let want = wanted("", &[]);
            let first = plan(&want, &have);
            let now = after(&have, &first, end.index(first.create.len() + first.delete.len() + 1));
            let second = plan(&want, &now);
            let done = after(&now, &second, usize::MAX);
            prop_assert_eq!(&done, &want);
            prop_assert!(plan(&want, &done).is_empty());
        }
    }

    #[test]
    fn what_gateways_get_lets_them_do_their_work_and_no_more() {
        let rights = wanted("", &[]);
        let may = |doing, topic| lets(&rights, "gateway", doing, topic);
        for topic in ["telemetry", "tg-presence", "tg-gateways"] {
            assert!(
                may(operation::READ, topic)
                    && may(operation::WRITE, topic)
                    && may(operation::DESCRIBE, topic)
            );
        }
        assert!(may(operation::READ, "tg-directory") && may(operation::DESCRIBE, "tg-directory"));
        assert!(!may(operation::WRITE, "tg-directory") && !may(operation::READ, "__consumer_offsets"));
        for other in [5, 6, 7, 10, 11] {
            assert!(!may(other, "telemetry"), "operation {other}");
        }
    }

    #[test]
    fn a_repair_says_what_was_missing_and_what_was_there_too_much() {
        let want = wanted("", &[]);
        let mut have = want.clone();
        let read = Acl::allow("gateway", operation::READ, Resource::literal(kind::TOPIC, "*"));
        assert!(have.remove(&read));
        have.insert(Acl::allow("*", operation::ALL, Resource::literal(kind::TOPIC, "*")));
        let said = plan(&want, &have).repair();
        assert!(said.contains("missing, and made again: User:gateway may read topics of any name"), "{said}");
        assert!(
            said.contains("not declared, and removed: User:* may do anything with topics of any name"),
            "{said}"
        );
        let long = plan(&want, &BTreeSet::new()).repair();
        assert!(long.contains("; and 4 more"), "{long}");
    }
}
