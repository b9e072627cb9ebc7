//! A size or an amount as Kubernetes writes it: `10Gi`, `250m`, `1114112`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The pattern of the schema. Exponents are left out: `1e3` is nobody's idea of a size.
pub const PATTERN: &str = r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$";

/// A non-negative amount, kept as it was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Quantity(String);

/// Why a text is no [`Quantity`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantityError(String);

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is no quantity: write for example 1Gi, 512Mi, 250m or 1048576", self.0)
    }
}

impl std::error::Error for QuantityError {}

/// A number without its suffix, scaled by 1000 to hold the milli part: suffix → factor.
fn factor(suffix: &str) -> Option<u128> {
    Some(match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        "Pi" => 1000 << 50,
        "Ei" => 1000 << 60,
        _ => return None,
    })
}

impl Quantity {
    /// So many bytes.
    pub fn bytes(bytes: u64) -> Self {
        Self(bytes.to_string())
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In thousandths, rounded up (as Kubernetes does).
    pub fn millis(&self) -> u128 {
        millis(&self.0).unwrap_or_default()
    }

    /// In whole units (bytes, cores), rounded up and held at `i64::MAX`.
    pub fn value(&self) -> i64 {
        i64::try_from(self.millis().div_ceil(1000)).unwrap_or(i64::MAX)
    }
}

fn millis(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor = factor(suffix)?;
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(w, f)| (w, Some(f)));
    if whole.is_empty() || whole.len() > 15 || fraction.is_some_and(|f| f.is_empty() || f.len() > 9) {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let fraction = match fraction {
        None => 0,
        Some(digits) => {
            let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
            (digits.parse::<u128>().ok()? * factor).div_ceil(scale)
        }
    };
    Some(whole * factor + fraction)
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        match millis(text) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(QuantityError(text.to_owned())),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&Quantity> for k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    fn from(value: &Quantity) -> Self {
        Self(value.0.clone())
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 1Gi or 1048576")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity::bytes(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                u64::try_from(number).map(Quantity::bytes).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // A number without a suffix is read by YAML as an integer.
        json_schema!({
            "x-kubernetes-int-or-string": true, "pattern": PATTERN, "maxLength": 32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_amounts_have_the_value_that_kubernetes_gives_them() {
        for (text, value, millis) in [
            ("1114112", 1_114_112, 1_114_112_000),
            ("1Gi", 1 << 30, 1000 << 30),
            ("1.5Ki", 1536, 1_536_000),
            ("250m", 1, 250),
            ("0.1", 1, 100),
            ("1k", 1000, 1_000_000),
            ("999999999999999Ei", i64::MAX, 999_999_999_999_999 * (1000 << 60)),
        ] {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!((quantity.value(), quantity.millis()), (value, millis), "{text}");
        }
    }

    #[test]
    fn an_integer_and_a_text_mean_the_same() {
        let number: Quantity = serde_json::from_str("1048576").unwrap();
        let text: Quantity = serde_json::from_str("\"1048576\"").unwrap();
        assert_eq!(number, text);
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_an_example() {
        for text in ["", "Gi", "-1", "1.", ".5", "1 Gi", "1e3", "1GiB", "1.2.3"] {
            let error = text.parse::<Quantity>().unwrap_err().to_string();
            assert!(error.contains("1Gi"), "{text}: {error}");
        }
        assert!(serde_json::from_str::<Quantity>("-1").is_err());
    }
}
