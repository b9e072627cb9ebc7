//! From an address to the Kafka topic that holds it.

use crate::address::Address;
use crate::directory::TopicEntry;
use crate::filter::Filter;
use crate::tree::FilterTree;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A `Topic` as gateways see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The name of the `Topic` resource.
    pub topic: String,
    /// The name in Kafka, prefix included.
    pub kafka_name: Arc<str>,
    /// The filters that won their addresses.
    pub filters: Vec<Filter>,
    /// The number of partitions in Kafka.
    pub partitions: i32,
    /// The largest record value that Kafka takes, in bytes.
    pub max_message_bytes: usize,
}

/// All routes of a platform. Immutable: a change of the directory makes a new one.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    tree: FilterTree<Arc<Route>>,
    by_kafka_name: BTreeMap<Arc<str>, Arc<Route>>,
}

impl Routes {
    /// Builds the routes from the directory's topics. A filter that does not parse is left out: the operator
    /// never writes one, and one bad entry must not take the others down.
    pub fn new<'a>(topics: impl IntoIterator<Item = &'a TopicEntry>) -> Self {
        let mut routes = Self::default();
        for entry in topics {
            let filters: Vec<_> = entry.filters.iter().filter_map(|text| Filter::parse(text).ok()).collect();
            let route = Arc::new(Route {
                topic: entry.name.clone(),
                kafka_name: entry.kafka_name.as_str().into(),
                filters,
                partitions: entry.partitions,
                max_message_bytes: usize::try_from(entry.max_message_bytes).unwrap_or(usize::MAX),
            });
            for filter in &route.filters {
                routes.tree.insert(filter, Arc::clone(&route));
            }
            routes.by_kafka_name.insert(route.kafka_name.clone(), route);
        }
        routes
    }

    /// The topic that holds `address`: the one with the most specific filter.
    pub fn route(&self, address: &Address) -> Option<&Arc<Route>> {
        self.tree.most_specific(address)
    }

    /// The topics that may hold addresses which `filter` matches, in the order of their Kafka names.
    pub fn overlapping(&self, filter: &Filter) -> impl Iterator<Item = &Arc<Route>> {
        self.by_kafka_name.values().filter(move |route| route.filters.iter().any(|own| own.overlaps(filter)))
    }

    /// All topics, in the order of their Kafka names.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.by_kafka_name.values()
    }

    /// The topic with this name in Kafka.
    pub fn by_kafka_name(&self, name: &str) -> Option<&Arc<Route>> {
        self.by_kafka_name.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, filters: &[&str]) -> TopicEntry {
        TopicEntry {
            name: name.to_owned(),
            kafka_name: format!("p.{name}"),
            filters: filters.iter().map(|&f| f.to_owned()).collect(),
            partitions: 12,
            max_message_bytes: 1024,
        }
    }

    #[test]
    fn an_address_lands_in_the_topic_with_the_most_specific_filter() {
        let topics = [
            entry("all", &["#"]),
            entry("power", &["sites/+/power/#"]),
            entry("berlin", &["sites/berlin/#"]),
        ];
        let routes = Routes::new(&topics);
        let topic = |text| routes.route(&Address::parse(text).unwrap()).unwrap().topic.clone();
        assert_eq!(topic("sites/berlin/power/1"), "berlin");
        assert_eq!(topic("sites/paris/power/1"), "power");
        assert_eq!(topic("other"), "all");
    }

    #[test]
    fn an_address_without_a_topic_has_no_route() {
        let topics = [entry("power", &["power/#"])];
        assert!(Routes::new(&topics).route(&Address::parse("x").unwrap()).is_none());
    }

    #[test]
    fn a_subscription_reads_only_topics_that_overlap_it() {
        let topics = [entry("a", &["a/#"]), entry("b", &["b/+/x"])];
        let routes = Routes::new(&topics);
        let names = |text| {
            let filter = Filter::parse(text).unwrap();
            routes.overlapping(&filter).map(|route| route.topic.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names("+/+/x"), ["a", "b"]);
        assert_eq!(names("b/1/y"), Vec::<String>::new());
        assert_eq!(names("b/1/x"), ["b"]);
    }
}
