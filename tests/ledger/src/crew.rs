//! Everybody who works for a load: publishers, observers and probes, on one thread. IO.

use crate::load::LoadOptions;
use crate::log::{Clock, ProbeKind, Sender};
use crate::observer::Observer;
use crate::probe;
use crate::publisher::{Publisher, Wish};
use crate::writer::Writer;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) struct Crew {
    pub options: Arc<LoadOptions>,
    pub clock: Clock,
    pub log: Sender,
    pub wish: watch::Receiver<Wish>,
}

impl Crew {
    /// Lets all of them work until the publishers have their answers, or the time for that is over.
    pub async fn run(self) {
        let (end, ended) = watch::channel(false);
        let mut others = self.others(&ended);
        let mut publishers = JoinSet::new();
        for number in 0..self.options.publishers {
            publishers.spawn(self.publisher(number).run());
        }
        for number in 0..self.options.writers {
            publishers.spawn(self.writer(number).run());
        }
        while publishers.join_next().await.is_some() {}
        // Those who look on see the last message, too.
        let _ = end.send(true);
        while others.join_next().await.is_some() {}
    }

    fn others(&self, ended: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut others = JoinSet::new();
        for number in 0..self.options.subscribers {
            others.spawn(self.observer(number).subscribe(ended.clone()));
        }
        for number in 0..self.options.readers {
            let observer = self.observer(self.options.subscribers + number);
            others.spawn(observer.read(self.options.http.clone(), ended.clone()));
        }
        if self.options.probe {
            let mut probe = |kind| {
                let options = Arc::clone(&self.options);
                others.spawn(probe::run(kind, options, self.clock, self.log.clone(), ended.clone()));
            };
            probe(ProbeKind::Connect);
            if !self.options.http.is_empty() {
                probe(ProbeKind::Http);
            }
        }
        others
    }

    fn publisher(&self, number: u16) -> Publisher {
        Publisher {
            number,
            options: Arc::clone(&self.options),
            clock: self.clock,
            log: self.log.clone(),
            wish: self.wish.clone(),
        }
    }

    fn writer(&self, number: u16) -> Writer {
        let interval = Duration::from_secs_f64(f64::from(self.options.writers) / self.options.http_rate);
        Writer {
            number: self.options.publishers + number,
            options: Arc::clone(&self.options),
            target: self.options.http.clone(),
            interval,
            phase: interval.mul_f64(f64::from(number) / f64::from(self.options.writers)),
            clock: self.clock,
            log: self.log.clone(),
            wish: self.wish.clone(),
        }
    }

    fn observer(&self, number: u16) -> Observer {
        Observer { number, options: Arc::clone(&self.options), clock: self.clock, log: self.log.clone() }
    }
}
