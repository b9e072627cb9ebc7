use super::*;
use tidegate_contract::fleet::{Authentication, DeviceLimits, Permissions};
use tidegate_contract::{Address, Filter};

const PASSWORD: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Something that happens to the directory.
type Change<'a> = Box<dyn Fn(&Roster) + 'a>;

fn principal(text: &str) -> Principal {
    Principal::parse(text).unwrap()
}

fn fleet(publish: &[&str], subscribe: &[&str]) -> FleetEntry {
    let authentication =
        Authentication { password: true, anonymous: Some("guest".to_owned()), ..Authentication::default() };
    FleetEntry { authentication, permissions: Permissions::new(publish, subscribe), ..FleetEntry::default() }
}

fn device(salt: u8) -> (DeviceEntry, Way) {
    let credential = Credential::new(PASSWORD, [salt; 16]).unwrap();
    let entry = DeviceEntry { credential: Some(credential.to_string()), ..DeviceEntry::default() };
    (entry, Way::Password(Box::new(credential)))
}

/// The fleet `meters` with device 1, who is in.
fn connected() -> (Roster, Admission) {
    let (roster, (entry, way)) = (Roster::default(), device(1));
    roster.put_fleet("meters", Some(&fleet(&["a/{device}/#"], &["b/{fleet}/+"])));
    assert!(roster.put_device(&principal("meters/1"), Some(&entry)));
    let admission = roster.seat(&principal("meters/1"), way, None).unwrap();
    (roster, admission)
}

fn has_ended(admission: &Admission) -> bool {
    let gone = futures::FutureExt::now_or_never(admission.ended()).is_some();
    let may = may(admission, Action::Publish, "a/1/x");
    assert_eq!(gone, !may, "who has to go may do nothing any more");
    gone
}

fn may(admission: &Admission, action: Action, address: &str) -> bool {
    admission.check(action, &Address::parse(address).unwrap()).is_ok()
}

fn may_subscribe(admission: &Admission, filter: &str) -> bool {
    admission.check(Action::Subscribe, &Filter::parse(filter).unwrap()).is_ok()
}

#[test]
fn what_no_permission_allows_is_denied() {
    let (_roster, device) = connected();
    assert!(may(&device, Action::Publish, "a/1") && may(&device, Action::Publish, "a/1/x/y"));
    for address in ["a/2/x", "b/meters/x", "a", "c"] {
        assert!(!may(&device, Action::Publish, address), "{address}");
    }
    assert!(may(&device, Action::Receive, "b/meters/x") && may(&device, Action::Subscribe, "b/meters/x"));
    assert!(!may(&device, Action::Receive, "b/others/x") && !may(&device, Action::Subscribe, "a/1"));
    assert!(may_subscribe(&device, "b/meters/+") && may_subscribe(&device, "b/meters/x"));
    for filter in ["#", "b/#", "b/+/+", "b/meters/#", "+/meters/x", "a/1/#"] {
        assert!(!may_subscribe(&device, filter), "{filter}");
    }
}

#[test]
fn permissions_change_under_a_device_that_stays() {
    let (roster, device) = connected();
    roster.put_fleet("meters", Some(&fleet(&["a/{device}/#"], &["c"])));
    assert!(!has_ended(&device));
    assert!(may(&device, Action::Receive, "c") && !may(&device, Action::Receive, "b/meters/x"));
}

#[test]
fn whoever_may_not_stay_is_told_to_go_and_may_do_nothing_any_more() {
    let meter = principal("meters/1");
    let (same, _) = device(1);
    let changes: [(&str, bool, Change<'_>); 9] = [
        (
            "nothing",
            false,
            Box::new(|roster| {
                roster.put_device(&meter, Some(&same));
            }),
        ),
        (
            "another device",
            false,
            Box::new(|roster| {
                roster.put_device(&principal("meters/2"), None);
            }),
        ),
        ("another fleet", false, Box::new(|roster| roster.put_fleet("others", Some(&fleet(&[], &[]))))),
        (
            "the Secret's version",
            false,
            Box::new(|roster| {
                let entry = DeviceEntry { source: Some("2".to_owned()), ..device(1).0 };
                roster.put_device(&meter, Some(&entry));
            }),
        ),
        (
            "the password",
            true,
            Box::new(|roster| {
                roster.put_device(&meter, Some(&device(2).0));
            }),
        ),
        (
            "disabled",
            true,
            Box::new(|roster| {
                roster.put_device(&meter, Some(&DeviceEntry { disabled: true, ..device(1).0 }));
            }),
        ),
        (
            "the device",
            true,
            Box::new(|roster| {
                roster.put_device(&meter, None);
            }),
        ),
        ("the fleet", true, Box::new(|roster| roster.put_fleet("meters", None))),
        (
            "the way",
            true,
            Box::new(|roster| {
                let mut entry = fleet(&["a/{device}/#"], &[]);
                entry.authentication.password = false;
                roster.put_fleet("meters", Some(&entry));
            }),
        ),
    ];
    for (what, ends, change) in changes {
        let (roster, device) = connected();
        change(&roster);
        assert_eq!(has_ended(&device), ends, "{what}");
    }
    let (roster, device) = connected();
    roster.replace(Records::default());
    assert!(has_ended(&device));
}

#[test]
fn who_is_anonymous_goes_when_another_fleet_takes_the_name() {
    let (roster, _device) = connected();
    let guest = roster.anonymous().unwrap();
    let admission = roster.seat(&guest, Way::Anonymous, None).unwrap();
    assert_eq!(admission.principal().as_str(), "meters/guest");
    roster.put_fleet("all", Some(&fleet(&[], &[])));
    assert!(futures::FutureExt::now_or_never(admission.ended()).is_some());
}

#[test]
fn a_device_has_as_many_connections_as_its_fleet_allows_and_takes_its_own_over() {
    let (roster, way) = (Roster::default(), device(1).1);
    let meter = principal("meters/1");
    let mut entry = fleet(&[], &[]);
    entry.limits = DeviceLimits { connections_per_device: Some(2), ..DeviceLimits::default() };
    roster.put_fleet("meters", Some(&entry));
    roster.put_device(&meter, Some(&device(1).0));
    let seat = |name| roster.seat(&meter, way.clone(), name);
    let first = seat(Some("x")).unwrap();
    let _second = seat(None).unwrap();
    assert_eq!(seat(None).unwrap_err(), NoSeat::TooMany);
    assert_eq!(seat(Some("y")).unwrap_err(), NoSeat::TooMany);
    let again = seat(Some("x")).unwrap();
    drop(first);
    assert_eq!(seat(Some("y")).unwrap_err(), NoSeat::TooMany);
    drop(again);
    seat(Some("y")).unwrap();
}

#[test]
fn what_a_device_owes_outlives_its_connections_and_nothing_else_does() {
    let (roster, way) = (Roster::default(), device(1).1);
    let mut entry = fleet(&[], &[]);
    entry.limits = DeviceLimits { publish_rate: Some(1), ..DeviceLimits::default() };
    roster.put_fleet("meters", Some(&entry));
    roster.put_device(&principal("meters/1"), Some(&device(1).0));
    let seat = || roster.seat(&principal("meters/1"), way.clone(), None).unwrap();
    drop(seat());
    assert!(roster.seats().devices.is_empty());
    let first = seat();
    (0..10).for_each(|_| first.spend(1));
    drop(first);
    assert!(seat().wait().is_some());
    assert_eq!(roster.seats().devices.len(), 1);
}

fn configured(value: Option<u8>) -> FleetEntry {
    let configuration = value.map(|value| [("v".to_owned(), value.into())].into_iter().collect());
    FleetEntry { configuration, ..fleet(&["#"], &["#"]) }
}

fn document(admission: &Admission) -> Option<String> {
    admission.configuration().map(|document| String::from_utf8(document.json().to_vec()).unwrap())
}

#[test]
fn a_fleets_devices_share_one_document() {
    let roster = Roster::default();
    roster.put_fleet("meters", Some(&configured(Some(1))));
    let seats: Vec<_> = (0..2)
        .map(|number| {
            let meter = principal(&format!("meters/{number}"));
            roster.put_device(&meter, Some(&device(1).0));
            roster.seat(&meter, device(1).1, None).unwrap()
        })
        .collect();
    let documents: Vec<_> = seats.iter().filter_map(Admission::configuration).collect();
    assert!(Arc::ptr_eq(&documents[0], &documents[1]));
}

#[tokio::test]
async fn another_document_is_told_and_the_same_one_is_not() {
    let (roster, device) = connected();
    let is_told = |known: Option<&tidegate_contract::desired::Document>| {
        futures::FutureExt::now_or_never(device.configured(known)).is_some()
    };
    assert!(!is_told(None));
    let waiting = device.configured(None);
    roster.put_fleet("meters", Some(&configured(Some(1))));
    waiting.await;
    let known = device.configuration();
    assert!(is_told(None) && !is_told(known.as_deref()));
    roster.put_fleet("others", Some(&configured(Some(2))));
    let mut entry = configured(Some(1));
    entry.limits.publish_rate = Some(1);
    roster.put_fleet("meters", Some(&entry));
    assert!(!is_told(known.as_deref()));
    roster.put_fleet("meters", Some(&configured(None)));
    assert!(is_told(known.as_deref()));
}

proptest::proptest! {
    /// Whatever happens to the directory: a device has its own fleet's newest document, or has to go.
    #[test]
    fn no_device_has_another_fleets_document(
        changes in proptest::collection::vec((0_u8..3, proptest::option::of(proptest::option::of(0_u8..200))), 1..24),
    ) {
        let names = ["a", "b", "a-b"];
        let roster = Roster::default();
        let mut now = [None; 3];
        let devices: Vec<_> = names.iter().map(|fleet| principal(&format!("{fleet}/{}", "a"))).collect();
        for meter in &devices {
            roster.put_device(meter, Some(&device(1).0));
        }
        let mut seats: Vec<(usize, Admission)> = Vec::new();
        for (which, change) in changes {
            let which = usize::from(which);
            now[which] = change;
            roster.put_fleet(names[which], change.map(configured).as_ref());
            for (fleet, meter) in devices.iter().enumerate() {
                let seat = roster.seat(meter, device(1).1, None);
                proptest::prop_assert_eq!(seat.is_ok(), now[fleet].is_some());
                seats.extend(seat.ok().map(|seat| (fleet, seat)));
            }
            seats.retain(|(_, seat)| futures::FutureExt::now_or_never(seat.ended()).is_none());
            for (fleet, seat) in &seats {
                let expected = now[*fleet].unwrap().map(|value| format!(r#"{{"v":{value}}}"#));
                proptest::prop_assert_eq!(document(seat), expected);
                for (other, meter) in devices.iter().enumerate() {
                    proptest::prop_assert_eq!(seat.owns(meter.as_str()).is_ok(), other == *fleet);
                    let filter = Filter::parse(&format!(".tidegate/desired/{meter}")).unwrap();
                    proptest::prop_assert_eq!(seat.check(Action::Subscribe, &filter).is_ok(), other == *fleet);
                    proptest::prop_assert!(seat.check(Action::Publish, &filter).is_err());
                }
            }
        }
    }
}
