//! MQTT topic filters over addresses (MQTT 5 §4.7).

use crate::address::{Address, MAX_BYTES};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A topic filter: levels joined by `/`, where `+` stands for one level and a last `#` for any number, the
/// parent included (`a/#` matches `a`). Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Filter(Arc<str>);

/// Why a text is no [`Filter`]. The message says what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The text is empty.
    #[error("a filter has at least one character")]
    Empty,
    /// The text is longer than [`MAX_BYTES`].
    #[error("a filter has at most 512 bytes, this one has {0}")]
    TooLong(usize),
    /// U+0000.
    #[error("a filter has no NUL character")]
    Nul,
    /// `#` that is not alone in the last level (MQTT 5 §4.7.1.2).
    #[error("\"#\" stands alone and in the last level: write \"a/#\"")]
    MisplacedHash,
    /// `+` that is not alone in its level (MQTT 5 §4.7.1.3).
    #[error("\"+\" stands alone in its level: write \"a/+/b\"")]
    MisplacedPlus,
}

impl FilterError {
    /// A constant name for metrics and conditions.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Empty => "FilterEmpty",
            Self::TooLong(_) => "FilterTooLong",
            Self::Nul => "FilterNul",
            Self::MisplacedHash => "FilterMisplacedHash",
            Self::MisplacedPlus => "FilterMisplacedPlus",
        }
    }
}

/// One level of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level<'a> {
    /// This text.
    Literal(&'a str),
    /// `+`: any one level.
    Plus,
    /// `#`: this and all further levels, or none.
    Hash,
}

impl Level<'_> {
    const fn rank(self) -> u8 {
        match self {
            Self::Literal(_) => 0,
            Self::Plus => 1,
            Self::Hash => 2,
        }
    }
}

impl Filter {
    /// Parses a decoded text.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }

    /// Whether a decoded text is a filter, for those who need nothing of it but the text.
    pub fn check(text: &str) -> Result<(), FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(FilterError::TooLong(text.len()));
        }
        if text.contains('\0') {
            return Err(FilterError::Nul);
        }
        // Most have few wildcards: levels are looked at only where there is one.
        if !text.contains('#') && !text.contains('+') {
            return Ok(());
        }
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains('#') && (level != "#" || levels.peek().is_some()) {
                return Err(FilterError::MisplacedHash);
            }
            if level.contains('+') && level != "+" {
                return Err(FilterError::MisplacedPlus);
            }
        }
        Ok(())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, from the left.
    pub fn levels(&self) -> impl Iterator<Item = Level<'_>> {
        self.0.split('/').map(|level| match level {
            "+" => Level::Plus,
            "#" => Level::Hash,
            text => Level::Literal(text),
        })
    }

    /// The one address that a filter without wildcards matches; nothing if it has one, or can match none.
    pub fn exact(&self) -> Option<Address> {
        Address::parse(&self.0).ok()
    }

    /// Whether it names addresses that the platform keeps: no permission is about those.
    pub fn is_kept(&self) -> bool {
        self.0.starts_with('.')
    }

    /// Whether `address` matches.
    pub fn matches(&self, address: &Address) -> bool {
        if address.is_kept() && !self.is_kept() {
            return false;
        }
        let mut levels = self.levels();
        for have in address.levels() {
            match levels.next() {
                Some(Level::Hash) => return true,
                Some(Level::Plus) => {}
                Some(Level::Literal(want)) if want == have => {}
                _ => return false,
            }
        }
        matches!(levels.next(), None | Some(Level::Hash))
    }

    /// Whether some address could match both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut left, mut right) = (self.levels(), other.levels());
        loop {
            match (left.next(), right.next()) {
                (Some(Level::Hash), _) | (_, Some(Level::Hash)) | (None, None) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(Level::Literal(a)), Some(Level::Literal(b))) if a != b => return false,
                _ => {}
            }
        }
    }

    /// Whether every address that `other` matches is one that this filter matches.
    pub fn covers(&self, other: &Self) -> bool {
        // an address has at least one level, so these two match the same
        if other.as_str() == "#" && self.as_str() == "+/#" {
            return true;
        }
        let (mut wide, mut narrow) = (self.levels(), other.levels());
        loop {
            match (wide.next(), narrow.next()) {
                (Some(Level::Hash), _) | (None, None) => return true,
                (Some(Level::Plus), Some(Level::Plus | Level::Literal(_))) => {}
                (Some(Level::Literal(a)), Some(Level::Literal(b))) if a == b => {}
                _ => return false,
            }
        }
    }

    /// `Less` if `self` wins an address that both match: compared level by level from the left, a literal before
    /// `+` before `#`. Filters of the same shape are equal.
    pub fn specificity(&self, other: &Self) -> Ordering {
        let (mut left, mut right) = (self.levels(), other.levels());
        loop {
            let order = match (left.next(), right.next()) {
                (None, None) => return Ordering::Equal,
                // what has ended matches here only what ends here, so it is the narrower one
                (None, Some(_)) => Ordering::Less,
                (Some(_), None) => Ordering::Greater,
                (Some(a), Some(b)) => a.rank().cmp(&b.rank()),
            };
            if order.is_ne() {
                return order;
            }
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn the_standards_own_examples_hold() {
        for name in
            ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"]
        {
            assert!(filter("sport/tennis/player1/#").matches(&address(name)));
        }
        assert!(filter("sport/#").matches(&address("sport")));
        assert!(filter("#").matches(&address("sport")));
        assert!(filter("sport/tennis/+").matches(&address("sport/tennis/player1")));
        assert!(!filter("sport/tennis/+").matches(&address("sport/tennis/player1/ranking")));
        assert!(!filter("sport/+").matches(&address("sport")));
        assert!(filter("sport/+").matches(&address("sport/")));
        assert!(filter("+/+").matches(&address("/finance")));
        assert!(filter("/+").matches(&address("/finance")));
        assert!(!filter("+").matches(&address("/finance")));
    }

    #[test]
    fn what_is_no_filter_is_refused_with_its_reason() {
        let long = "x".repeat(513);
        let cases = [
            ("", FilterError::Empty),
            (long.as_str(), FilterError::TooLong(513)),
            ("a\0", FilterError::Nul),
            ("a#", FilterError::MisplacedHash),
            ("a/#/b", FilterError::MisplacedHash),
            ("a+/b", FilterError::MisplacedPlus),
        ];
        for (text, error) in cases {
            assert_eq!(Filter::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn the_narrower_filter_wins() {
        let ordered = ["a/b", "a/+", "a/#", "+/b", "+/+", "+/#", "#"];
        for (index, narrow) in ordered.iter().enumerate() {
            for wide in &ordered[index + 1..] {
                assert_eq!(
                    filter(narrow).specificity(&filter(wide)),
                    Ordering::Less,
                    "{narrow} against {wide}"
                );
            }
        }
        assert_eq!(filter("a").specificity(&filter("a/#")), Ordering::Less);
        assert_eq!(filter("a/b").specificity(&filter("c/d")), Ordering::Equal);
    }

    #[test]
    fn overlap_is_seen() {
        for (a, b) in [("a/#", "a"), ("+/b", "a/+"), ("#", "x/y"), ("a/+/c", "a/b/#")] {
            assert!(filter(a).overlaps(&filter(b)) && filter(b).overlaps(&filter(a)), "{a} and {b}");
        }
        for (a, b) in [("a/b", "a/c"), ("a/+", "a"), ("a/+", "b/#")] {
            assert!(!filter(a).overlaps(&filter(b)) && !filter(b).overlaps(&filter(a)), "{a} and {b}");
        }
    }

    #[test]
    fn what_a_filter_covers_is_no_wider_than_itself() {
        for (wide, narrow) in [
            ("#", "#"),
            ("#", "a/+/#"),
            ("a/#", "a"),
            ("a/#", "a/#"),
            ("a/#", "a/+/c"),
            ("a/+", "a/b"),
            ("a/+", "a/+"),
            ("+/#", "#"),
            ("#", "+/#"),
            ("+/+", "a/"),
            ("a", "a"),
        ] {
            assert!(filter(wide).covers(&filter(narrow)), "{wide} covers {narrow}");
        }
        for (narrow, wide) in [
            ("a/#", "#"),
            ("a/+", "a/#"),
            ("a/b", "a/+"),
            ("a/+", "a"),
            ("a", "a/#"),
            ("a/+/#", "a/#"),
            ("+/+/#", "#"),
            ("a/b", "a/c"),
            ("a/b/#", "a/+/#"),
        ] {
            assert!(!filter(narrow).covers(&filter(wide)), "{narrow} does not cover {wide}");
        }
    }

    proptest! {
        #[test]
        fn what_is_covered_matches_nothing_else(
            a in "[ab+]{1}(/[ab+]){0,3}(/#)?", b in "[ab+]{1}(/[ab+]){0,3}(/#)?", x in "[ab](/[ab]){0,4}",
        ) {
            let (a, b, x) = (filter(&a), filter(&b), address(&x));
            if a.covers(&b) && b.matches(&x) {
                prop_assert!(a.matches(&x));
            }
        }

        #[test]
        fn two_filters_that_match_one_address_overlap(
            a in "[ab+]{1}(/[ab+]){0,3}(/#)?", b in "[ab+]{1}(/[ab+]){0,3}(/#)?", x in "[ab](/[ab]){0,4}",
        ) {
            let (a, b, x) = (filter(&a), filter(&b), address(&x));
            if a.matches(&x) && b.matches(&x) {
                prop_assert!(a.overlaps(&b));
            }
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,600}") {
            let _ = Filter::parse(&text);
        }
    }
}
