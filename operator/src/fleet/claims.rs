//! Which of several fleets has a certificate authority, or those who say nothing: the oldest. Pure.

use super::authorities::Id;
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// A fleet of a platform, as far as others may be in its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was made.
    pub made: Option<Timestamp>,
    /// Whether it takes client certificates.
    pub x509: bool,
    /// Whether it takes those who say nothing.
    pub anonymous: bool,
}

/// What a fleet has said about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its uid.
    pub uid: String,
    /// Its certificate authorities.
    pub ids: BTreeSet<Id>,
    /// Whether it takes those who say nothing.
    pub anonymous: bool,
    /// The fleet without whose word it cannot be said what this one has.
    pub waits_for: Option<String>,
}

/// The claims of all fleets of a platform.
pub type Claims = BTreeMap<String, Claim>;

/// Whether a fleet has what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has.
    Has,
    /// An older fleet does.
    Lost(String),
    /// An older fleet has not said yet what it asks for.
    Unknown(String),
}

/// What a fleet has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Its certificate authorities.
    pub x509: Standing,
    /// Those who say nothing.
    pub anonymous: Standing,
}

/// Decides for the fleet `name` among all of its platform.
pub fn decide(name: &str, mut all: Vec<Candidate>, claims: &Claims) -> Decided {
    all.sort_by(|a, b| a.made.cmp(&b.made).then_with(|| a.name.cmp(&b.name)));
    let mut holders: BTreeMap<Id, &str> = BTreeMap::new();
    let (mut silent, mut unknown): (Option<&str>, Option<&str>) = (None, None);
    for one in &all {
        let own = one.name == name;
        let anonymous = silent.map_or(Standing::Has, |holder| Standing::Lost(holder.to_owned()));
        if one.anonymous && silent.is_none() {
            silent = Some(&one.name);
        }
        let claim = claims.get(&one.name).filter(|claim| claim.uid == one.uid);
        let mut x509 = Standing::Has;
        if one.x509 {
            match claim {
                None => {
                    unknown.get_or_insert(&one.name);
                }
                Some(claim) => match claim.ids.iter().find_map(|id| holders.get(id)) {
                    Some(holder) => x509 = Standing::Lost((*holder).to_owned()),
                    // Whether it has them may depend on one of whom nothing is known; nobody else gets them meanwhile.
                    None => holders.extend(claim.ids.iter().map(|id| (*id, one.name.as_str()))),
                },
            }
        }
        if own {
            if let (Standing::Has, Some(unknown)) = (&x509, unknown) {
                x509 = Standing::Unknown(unknown.to_owned());
            }
            return Decided { x509, anonymous };
        }
    }
    Decided { x509: Standing::Has, anonymous: Standing::Has }
}

/// Which other fleets have to look again after the claim of `name` became another.
pub fn concerned(name: &str, before: Option<&Claim>, now: Option<&Claim>, claims: &Claims) -> Vec<String> {
    let ids: BTreeSet<_> = before.into_iter().chain(now).flat_map(|claim| claim.ids.iter()).collect();
    let silent = before.is_some_and(|claim| claim.anonymous) != now.is_some_and(|claim| claim.anonymous);
    let same = before.map(|claim| &claim.ids) == now.map(|claim| &claim.ids);
    let others = claims.iter().filter(|(other, claim)| {
        *other != name
            && (claim.waits_for.as_deref() == Some(name)
                || silent && claim.anonymous
                || !same && claim.ids.iter().any(|id| ids.contains(id)))
    });
    others.map(|(other, _)| other.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, second: i64) -> Candidate {
        let made = Timestamp::from_second(second).ok();
        Candidate { name: name.to_owned(), uid: name.to_owned(), made, x509: true, anonymous: false }
    }

    fn claim(name: &str, ids: &[u8]) -> (String, Claim) {
        let ids = ids.iter().map(|&id| [id; 32]).collect();
        (name.to_owned(), Claim { uid: name.to_owned(), ids, ..Claim::default() })
    }

    fn lost(name: &str) -> Standing {
        Standing::Lost(name.to_owned())
    }

    #[test]
    fn the_oldest_has_a_shared_authority_and_the_next_gets_it() {
        let all = vec![candidate("young", 2), candidate("old", 1), candidate("other", 3)];
        let claims = Claims::from([claim("old", &[1]), claim("young", &[1, 2]), claim("other", &[2])]);
        let decided = |name: &str, all: &Vec<Candidate>| decide(name, all.clone(), &claims).x509;
        assert_eq!(decided("old", &all), Standing::Has);
        assert_eq!(decided("young", &all), lost("old"));
        assert_eq!(decided("other", &all), Standing::Has, "young has none of its authorities");
        assert_eq!(decided("young", &all[..1].to_vec()), Standing::Has, "old is gone");
        let same_second = vec![candidate("old", 2), candidate("young", 2)];
        assert_eq!(decided("young", &same_second), lost("old"), "by name");
    }

    #[test]
    fn nothing_is_given_away_before_every_older_fleet_has_spoken() {
        let all = vec![candidate("old", 1), candidate("young", 2)];
        let mut claims = Claims::from([claim("young", &[1])]);
        assert_eq!(decide("young", all.clone(), &claims).x509, Standing::Unknown("old".to_owned()));
        assert_eq!(decide("old", all[..1].to_vec(), &Claims::from([claim("old", &[])])).x509, Standing::Has);
        // A fleet of the same name that was made anew has said nothing yet.
        claims.extend([("old".to_owned(), Claim { uid: "before".to_owned(), ..Claim::default() })]);
        assert_eq!(decide("young", all.clone(), &claims).x509, Standing::Unknown("old".to_owned()));
        claims.extend([claim("old", &[])]);
        assert_eq!(decide("young", all, &claims).x509, Standing::Has);
    }

    #[test]
    fn only_one_fleet_takes_those_who_say_nothing() {
        let mut all = vec![candidate("old", 1), candidate("young", 2)];
        all[1].anonymous = true;
        assert_eq!(decide("young", all.clone(), &Claims::new()).anonymous, Standing::Has);
        all[0].anonymous = true;
        assert_eq!(decide("young", all.clone(), &Claims::new()).anonymous, lost("old"));
        assert_eq!(decide("old", all, &Claims::new()).anonymous, Standing::Has);
    }

    #[test]
    fn a_changed_claim_concerns_those_who_share_or_wait() {
        let mut claims =
            Claims::from([claim("a", &[1]), claim("b", &[1]), claim("c", &[2]), claim("d", &[3])]);
        claims.get_mut("d").unwrap().waits_for = Some("a".to_owned());
        let told = |before: Option<&Claim>, now: Option<&Claim>| concerned("a", before, now, &claims);
        let (one, two) = (claim("a", &[1]).1, claim("a", &[2]).1);
        assert_eq!(told(None, Some(&one)), ["b", "d"]);
        assert_eq!(told(Some(&one), Some(&two)), ["b", "c", "d"]);
        assert_eq!(told(Some(&one), Some(&one)), ["d"]);
        let silent = Claim { anonymous: true, ..one.clone() };
        let mut others = claims.clone();
        others.get_mut("c").unwrap().anonymous = true;
        assert_eq!(concerned("a", Some(&one), Some(&silent), &others), ["c", "d"]);
    }
}
