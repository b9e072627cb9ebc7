use super::*;
use crate::roster::Action;
use std::net::Ipv4Addr;
use tidegate_contract::fleet::{Authentication, DeviceEntry, DeviceLimits, FleetEntry, Permissions};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const MACHINE: &str = "0123456789abcdef0123456789abcdef";
const HUMAN: &str = "secret";

fn principal(text: &str) -> Principal {
    Principal::parse(text).unwrap()
}

fn device(password: &str, disabled: bool) -> DeviceEntry {
    let credential = Credential::new(password.as_bytes(), [7; 16]).unwrap().to_string();
    DeviceEntry { disabled, credential: Some(credential), source: None }
}

fn fleet(anonymous: Option<&str>) -> FleetEntry {
    let anonymous = anonymous.map(str::to_owned);
    FleetEntry {
        authentication: Authentication { password: true, anonymous, ..Authentication::default() },
        permissions: Permissions::new(&["a/{device}"], &[]),
        limits: DeviceLimits { connections_per_device: Some(1), ..DeviceLimits::default() },
        ..FleetEntry::default()
    }
}

fn access() -> Access {
    let roster = Roster::default();
    roster.put_fleet("meters", Some(&fleet(None)));
    roster.put_device(&principal("meters/machine"), Some(&device(MACHINE, false)));
    roster.put_device(&principal("meters/human"), Some(&device(HUMAN, false)));
    roster.put_device(&principal("meters/off"), Some(&device(HUMAN, true)));
    roster.put_device(&principal("meters/none"), Some(&DeviceEntry::default()));
    Access::new(roster, AccessMetrics::default())
}

impl Access {
    async fn try_password(&self, username: &str, password: &str) -> Result<Admission, NotAdmitted> {
        let proof = Proof::Password { username, password: Secret(password.as_bytes()) };
        self.admit(HERE, proof, None).await
    }
}

#[tokio::test]
async fn a_device_comes_in_with_its_password_and_with_no_other() {
    let access = access();
    for (username, password) in
        [("meters/machine", MACHINE), ("meters/human", HUMAN), ("meters/human", HUMAN)]
    {
        let admission = access.try_password(username, password).await.unwrap();
        assert_eq!(admission.principal().as_str(), username);
        let own = tidegate_contract::Address::parse(&format!("a/{}", principal(username).device())).unwrap();
        assert!(admission.check(Action::Publish, &own).is_ok());
    }
    let long = "x".repeat(2_000);
    for (username, password) in [
        ("meters/machine", HUMAN),
        ("meters/machine", "0123456789abcdef0123456789abcdeF"),
        ("meters/human", MACHINE),
        ("meters/human", "Secret"),
        ("meters/human", ""),
        ("meters/none", ""),
        ("meters/none", HUMAN),
        ("meters/nobody", HUMAN),
        ("others/human", HUMAN),
        ("human", HUMAN),
        ("", ""),
        ("meters/human", &long),
        ("meters/off", "wrong"),
    ] {
        let refused = access.try_password(username, password).await.unwrap_err();
        assert_eq!(refused, NotAdmitted::Wrong, "{username} {password}");
    }
    assert_eq!(access.try_password("meters/off", HUMAN).await.unwrap_err(), NotAdmitted::Disabled);
}

#[tokio::test]
async fn nobody_is_let_in_who_says_nothing_unless_a_fleet_names_who_that_is() {
    let access = access();
    let refused = access.admit(HERE, Proof::Nothing, None).await.unwrap_err();
    assert_eq!(refused, NotAdmitted::Nobody);
    access.roster.put_fleet("guests", Some(&fleet(Some("guest"))));
    let guest = access.admit(HERE, Proof::Nothing, None).await.unwrap();
    assert_eq!(guest.principal().as_str(), "guests/guest");
    assert_eq!(access.admit(HERE, Proof::Nothing, None).await.unwrap_err(), NotAdmitted::TooMany);
    // whoever says a name has to prove it
    assert_eq!(access.try_password("guests/guest", "").await.unwrap_err(), NotAdmitted::Wrong);
}

#[tokio::test]
async fn wrong_too_often_has_to_wait_and_the_right_password_of_a_known_device_has_not() {
    let access = access();
    drop(access.try_password("meters/human", HUMAN).await.unwrap());
    for username in ["meters/human", "meters/machine", "meters/nobody"] {
        let mut answers = Vec::new();
        for _ in 0..6 {
            answers.push(access.try_password(username, "wrong").await.unwrap_err().reason());
        }
        let (wrong, late) = ("WrongCredentials", "TooManyFailures");
        assert_eq!(answers, [wrong, wrong, wrong, wrong, late, late], "{username}");
    }
    // one was verified here before, the other costs a microsecond: guesses do not lock either out
    drop(access.try_password("meters/human", HUMAN).await.unwrap());
    drop(access.try_password("meters/machine", MACHINE).await.unwrap());
    // from elsewhere it is nobody's fault
    let proof = Proof::Password { username: "meters/human", password: Secret(b"wrong") };
    let elsewhere = access.admit([10, 0, 0, 1].into(), proof, None).await.unwrap_err();
    assert_eq!(elsewhere, NotAdmitted::Wrong);
}

#[tokio::test]
async fn a_changed_password_counts_at_once_and_the_old_one_is_wrong() {
    let access = access();
    drop(access.try_password("meters/human", HUMAN).await.unwrap());
    access.roster.put_device(&principal("meters/human"), Some(&device("another", false)));
    assert_eq!(access.try_password("meters/human", HUMAN).await.unwrap_err(), NotAdmitted::Wrong);
    access.try_password("meters/human", "another").await.unwrap();
}

/// Each try has a username of its own, so only the source as a whole is too often wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_guesses_costs_few_hashes_and_keeps_no_device_out() {
    let access = access();
    drop(access.try_password("meters/human", HUMAN).await.unwrap());
    let guess = |number: u32| {
        let access = access.clone();
        async move { access.try_password(&format!("meters/{number}"), "guess").await.unwrap_err() }
    };
    let flood: Vec<_> = (0..2_000).map(|number| tokio::spawn(guess(number))).collect();
    // while it lasts, from the same source
    drop(access.try_password("meters/human", HUMAN).await.unwrap());
    drop(access.try_password("meters/machine", MACHINE).await.unwrap());
    let mut hashed = 0;
    for one in flood {
        match one.await.unwrap() {
            NotAdmitted::Wrong => hashed += 1,
            NotAdmitted::TooOften { after } => assert!(after <= Duration::from_secs(1), "{after:?}"),
            other => panic!("{other:?}"),
        }
    }
    // 50 at once, and five for every second that it took
    assert!((50..200).contains(&hashed), "{hashed}");
}

#[test]
fn neither_secrets_nor_credentials_show_themselves_in_a_log() {
    let proof = Proof::Password { username: "meters/human", password: Secret(b"secret") };
    assert!(!format!("{proof:?}").contains("secret"));
}
