//! A tree of filters: which values an address reaches, without asking every filter.

use crate::address::Address;
use crate::filter::{Filter, Level};
use std::collections::HashMap;

/// Values under filters. A look-up visits only the branches that the address can take.
#[derive(Clone, Debug)]
pub struct FilterTree<T> {
    root: Node<T>,
}

#[derive(Clone, Debug)]
struct Node<T> {
    literals: HashMap<Box<str>, Self>,
    plus: Option<Box<Self>>,
    /// Values of filters that end here.
    here: Vec<T>,
    /// Values of filters that end here with `#`.
    below: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literals: HashMap::new(), plus: None, here: Vec::new(), below: Vec::new() }
    }
}

impl<T> Default for FilterTree<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<T> FilterTree<T> {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value under a filter. The same value may stand there more than once.
    pub fn insert(&mut self, filter: &Filter, value: T) {
        let mut node = &mut self.root;
        for level in filter.levels() {
            node = match level {
                Level::Literal(text) => node.literals.entry(text.into()).or_default(),
                Level::Plus => node.plus.get_or_insert_default(),
                Level::Hash => return node.below.push(value),
            };
        }
        node.here.push(value);
    }

    /// Removes the values under `filter` for which `gone` says so, and the branches that are empty then.
    pub fn remove(&mut self, filter: &Filter, gone: impl Fn(&T) -> bool) {
        let levels: Vec<_> = filter.levels().collect();
        self.root.remove(&levels, &gone);
    }

    /// Calls `found` with every value whose filter matches.
    pub fn matches<'a>(&'a self, address: &Address, mut found: impl FnMut(&'a T)) {
        let levels: Vec<_> = address.levels().collect();
        if !address.is_kept() {
            self.root.matches(&levels, &mut found);
        } else if let Some((first, rest)) = levels.split_first()
            && let Some(node) = self.root.literals.get(*first)
        {
            node.matches(rest, &mut found);
        }
    }

    /// The first value of the most specific filter that matches (see [`Filter::specificity`]).
    pub fn most_specific(&self, address: &Address) -> Option<&T> {
        let levels: Vec<_> = address.levels().collect();
        self.root.most_specific(&levels)
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.plus.is_none() && self.here.is_empty() && self.below.is_empty()
    }

    fn remove(&mut self, levels: &[Level<'_>], gone: &impl Fn(&T) -> bool) {
        match levels.split_first() {
            None => self.here.retain(|value| !gone(value)),
            Some((Level::Hash, _)) => self.below.retain(|value| !gone(value)),
            Some((Level::Plus, rest)) => {
                if let Some(node) = &mut self.plus {
                    node.remove(rest, gone);
                }
                self.plus.take_if(|node| node.is_empty());
            }
            Some((Level::Literal(text), rest)) => {
                if let Some(node) = self.literals.get_mut(*text) {
                    node.remove(rest, gone);
                    if node.is_empty() {
                        self.literals.remove(*text);
                    }
                }
            }
        }
    }

    fn matches<'a>(&'a self, levels: &[&str], found: &mut impl FnMut(&'a T)) {
        self.below.iter().for_each(&mut *found);
        let Some((level, rest)) = levels.split_first() else {
            return self.here.iter().for_each(found);
        };
        if let Some(node) = self.literals.get(*level) {
            node.matches(rest, found);
        }
        if let Some(node) = &self.plus {
            node.matches(rest, found);
        }
    }

    fn most_specific(&self, levels: &[&str]) -> Option<&T> {
        let Some((level, rest)) = levels.split_first() else {
            return self.here.first().or(self.below.first());
        };
        self.literals
            .get(*level)
            .and_then(|node| node.most_specific(rest))
            .or_else(|| self.plus.as_ref().and_then(|node| node.most_specific(rest)))
            .or(self.below.first())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    fn found<'a>(tree: &'a FilterTree<String>, address: &str) -> Vec<&'a str> {
        let mut all = Vec::new();
        tree.matches(&Address::parse(address).unwrap(), |value| all.push(value.as_str()));
        all.sort_unstable();
        all
    }

    #[test]
    fn an_address_reaches_every_filter_that_matches() {
        let mut tree = FilterTree::new();
        for text in ["a/b", "a/+", "a/#", "#", "+/b", "a", "c/#"] {
            tree.insert(&filter(text), text.to_owned());
        }
        assert_eq!(found(&tree, "a/b"), ["#", "+/b", "a/#", "a/+", "a/b"]);
        assert_eq!(found(&tree, "a"), ["#", "a", "a/#"]);
        assert_eq!(found(&tree, "c/d/e"), ["#", "c/#"]);
        assert_eq!(tree.most_specific(&Address::parse("a/b").unwrap()).unwrap(), "a/b");
        assert_eq!(tree.most_specific(&Address::parse("a/x").unwrap()).unwrap(), "a/+");
        assert_eq!(tree.most_specific(&Address::parse("x/b").unwrap()).unwrap(), "+/b");
    }

    #[test]
    fn no_wildcard_matches_what_the_platform_keeps() {
        let kept = crate::desired::address(&crate::Principal::parse("meters/1").unwrap());
        let mut tree = FilterTree::new();
        for text in ["#", "+/#", "+/desired/meters/1", "+/+/+/+", "#", ".tidegate/desired/meters/1"] {
            tree.insert(&filter(text), text.to_owned());
            assert_eq!(filter(text).matches(&kept), filter(text).is_kept(), "{text}");
        }
        let mut all = Vec::new();
        tree.matches(&kept, |value| all.push(value.as_str()));
        assert_eq!(all, [".tidegate/desired/meters/1"]);
    }

    #[test]
    fn a_removed_value_is_gone_and_leaves_no_branch() {
        let mut tree = FilterTree::new();
        tree.insert(&filter("a/+/c"), 1);
        tree.insert(&filter("a/+/c"), 2);
        tree.insert(&filter("a/#"), 3);
        tree.remove(&filter("a/+/c"), |value| *value == 1);
        assert_eq!(tree.most_specific(&Address::parse("a/b/c").unwrap()), Some(&2));
        tree.remove(&filter("a/+/c"), |_| true);
        assert_eq!(tree.most_specific(&Address::parse("a/b/c").unwrap()), Some(&3));
        tree.remove(&filter("a/#"), |_| true);
        assert!(tree.root.is_empty());
    }

    proptest! {
        #[test]
        fn the_tree_agrees_with_asking_every_filter(
            filters in prop::collection::vec("([ab+]{1}(/[ab+]){0,3}(/#)?|#)", 0..12), x in "[ab](/[ab]){0,4}",
        ) {
            let x = Address::parse(&x).unwrap();
            let mut tree = FilterTree::new();
            for text in &filters {
                tree.insert(&filter(text), filter(text));
            }
            let mut got = Vec::new();
            tree.matches(&x, |value| got.push(value.as_str()));
            let mut want: Vec<_> = filters.iter().map(|t| filter(t)).filter(|f| f.matches(&x)).collect();
            want.sort_by(Filter::specificity);
            prop_assert_eq!(tree.most_specific(&x).map(|f| f.specificity(&want[0])), want.first().map(|_| std::cmp::Ordering::Equal));
            let mut want: Vec<_> = want.iter().map(Filter::as_str).collect();
            got.sort_unstable();
            want.sort_unstable();
            prop_assert_eq!(got, want);
        }
    }
}
