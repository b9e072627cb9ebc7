//! A client's subscription to its desired document: a state, not a log, so only the newest is ever sent. No IO.

use std::sync::Arc;
use tidegate_contract::desired::Document;

/// What of the document the client still has to get.
#[derive(Debug, Default)]
pub(super) struct Desired {
    following: Option<Following>,
}

#[derive(Debug, Default)]
struct Following {
    /// What the client has, or was not to be sent.
    known: Option<Arc<Document>>,
    /// The subscription asks for the document as it is.
    due: bool,
}

/// What is sent: a document, or that there is none any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) document: Option<Arc<Document>>,
    /// Whether it is sent because of the subscription, and not because it is another one.
    pub(super) retained: bool,
}

impl Desired {
    /// The subscription begins, or goes on with other options.
    pub(super) fn follow(&mut self, current: Option<Arc<Document>>) {
        self.following.get_or_insert(Following { known: current, due: false });
    }

    /// The subscription asks for the document as it is.
    pub(super) fn ask(&mut self) {
        if let Some(following) = &mut self.following {
            following.due = true;
        }
    }

    /// The subscription ends.
    pub(super) fn leave(&mut self) {
        self.following = None;
    }

    /// What another document is compared with; nothing while there is nothing to wait for. `Err`: something is due.
    pub(super) fn known(&self) -> Option<Result<Option<&Document>, Due>> {
        let following = self.following.as_ref()?;
        Some(if following.due { Err(Due) } else { Ok(following.known.as_deref()) })
    }

    /// What to send now.
    pub(super) fn next(&mut self, current: Option<Arc<Document>>) -> Option<News> {
        let following = self.following.as_mut()?;
        let due = std::mem::take(&mut following.due);
        let changed = following.known != current;
        following.known.clone_from(&current);
        // of a document that went meanwhile only who had it is told
        let retained = due && current.is_some();
        (retained || changed).then_some(News { document: current, retained })
    }
}

/// The document is due, whatever it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    fn document(value: u8) -> Arc<Document> {
        let map = Map::from_iter([("v".to_owned(), json!(value))]);
        Arc::new(Document::new(&map))
    }

    fn sent(desired: &mut Desired, current: Option<Arc<Document>>) -> Option<(bool, bool)> {
        desired.next(current).map(|news| (news.document.is_some(), news.retained))
    }

    #[test]
    fn who_asks_gets_the_document_as_it_is_and_then_each_other_one_once() {
        let mut desired = Desired::default();
        assert!(desired.known().is_none());
        desired.follow(Some(document(1)));
        desired.ask();
        assert_eq!(desired.known(), Some(Err(Due)));
        assert_eq!(sent(&mut desired, Some(document(1))), Some((true, true)));
        assert_eq!(sent(&mut desired, Some(document(1))), None);
        assert_eq!(sent(&mut desired, Some(document(2))), Some((true, false)));
        assert_eq!(sent(&mut desired, None), Some((false, false)));
        assert_eq!(sent(&mut desired, None), None);
        // asked once more, as MQTT 3.1.1 does with every SUBSCRIBE
        desired.follow(Some(document(3)));
        desired.ask();
        assert_eq!(sent(&mut desired, Some(document(3))), Some((true, true)));
        desired.leave();
        assert_eq!(sent(&mut desired, Some(document(4))), None);
    }

    #[test]
    fn who_does_not_ask_gets_what_comes_later() {
        let mut desired = Desired::default();
        desired.follow(Some(document(1)));
        assert_eq!(sent(&mut desired, Some(document(1))), None);
        assert_eq!(sent(&mut desired, Some(document(2))), Some((true, false)));
    }

    #[test]
    fn where_there_is_no_document_nothing_is_sent_until_there_is_one() {
        let mut desired = Desired::default();
        desired.follow(None);
        desired.ask();
        assert_eq!(sent(&mut desired, None), None);
        assert_eq!(sent(&mut desired, Some(document(1))), Some((true, false)));
    }

    #[test]
    fn a_subscription_that_is_made_again_misses_nothing() {
        let mut desired = Desired::default();
        desired.follow(Some(document(1)));
        desired.follow(Some(document(2)));
        assert_eq!(sent(&mut desired, Some(document(2))), Some((true, false)));
    }
}
