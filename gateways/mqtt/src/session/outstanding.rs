//! Publishes of the client that Kafka has not answered yet, in the order in which they came.

use super::types::Refusal;
use crate::codec::Qos;
use std::collections::VecDeque;

/// The publishes without an answer. Answers leave in the order of the publishes (MQTT-4.6.0-2), whatever the
/// order in which Kafka gives them.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    queue: VecDeque<Entry>,
    /// The token of the front entry.
    first: u64,
    at_least_once: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    packet_id: u16,
    qos: Qos,
    answer: Option<Answer>,
}

/// What is known of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Stored,
    Refused(Refusal),
    Failed,
}

/// An answer whose turn it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    pub(super) packet_id: u16,
    pub(super) qos: Qos,
    pub(super) answer: Answer,
}

impl Outstanding {
    /// Adds a publish and names it.
    pub(super) fn push(&mut self, packet_id: u16, qos: Qos) -> u64 {
        self.at_least_once += usize::from(qos != Qos::AtMostOnce);
        self.queue.push_back(Entry { packet_id, qos, answer: None });
        self.first + self.queue.len() as u64 - 1
    }

    /// Notes an answer. One for a token that nobody waits for, or a second one, changes nothing.
    pub(super) fn answer(&mut self, token: u64, answer: Answer) {
        let index = token.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.queue.get_mut(index)) {
            entry.answer.get_or_insert(answer);
        }
    }

    /// Takes the front publish, if it has its answer.
    pub(super) fn next(&mut self) -> Option<Next> {
        let front = *self.queue.front()?;
        let answer = front.answer?;
        self.queue.pop_front();
        self.first += 1;
        self.at_least_once -= usize::from(front.qos != Qos::AtMostOnce);
        Some(Next { packet_id: front.packet_id, qos: front.qos, answer })
    }

    /// Whether a QoS 1 publish with this packet identifier waits.
    pub(super) fn has(&self, packet_id: u16) -> bool {
        self.queue.iter().any(|entry| entry.qos != Qos::AtMostOnce && entry.packet_id == packet_id)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Those of QoS 1, which Receive Maximum counts.
    pub(super) const fn at_least_once(&self) -> usize {
        self.at_least_once
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(outstanding: &mut Outstanding) -> Vec<u16> {
        std::iter::from_fn(|| outstanding.next()).map(|next| next.packet_id).collect()
    }

    #[test]
    fn answers_leave_in_the_order_of_the_publishes() {
        let mut outstanding = Outstanding::default();
        let tokens: Vec<_> = (1..=3).map(|id| outstanding.push(id, Qos::AtLeastOnce)).collect();
        outstanding.answer(tokens[2], Answer::Stored);
        outstanding.answer(tokens[1], Answer::Stored);
        assert_eq!(ids(&mut outstanding), Vec::<u16>::new());
        outstanding.answer(tokens[0], Answer::Stored);
        assert_eq!(ids(&mut outstanding), [1, 2, 3]);
        assert_eq!(outstanding.push(4, Qos::AtMostOnce), 3);
        assert_eq!((outstanding.len(), outstanding.at_least_once()), (1, 0));
    }

    #[test]
    fn a_second_answer_and_one_for_nobody_change_nothing() {
        let mut outstanding = Outstanding::default();
        let token = outstanding.push(1, Qos::AtLeastOnce);
        outstanding.answer(token, Answer::Failed);
        outstanding.answer(token, Answer::Stored);
        outstanding.answer(77, Answer::Stored);
        assert_eq!(outstanding.next().unwrap().answer, Answer::Failed);
        outstanding.answer(token, Answer::Stored);
        assert!(outstanding.next().is_none() && outstanding.is_empty());
    }
}
