//! Two samples side by side. Pure.

/// How far two samples are apart, in standard deviations (Mann and Whitney's U), and the ratio of their medians.
#[allow(clippy::cast_precision_loss)] // counts of tries
pub fn apart(left: &[f64], right: &[f64]) -> (f64, f64) {
    let (lefts, rights) = (left.len() as f64, right.len() as f64);
    let above: usize = left.iter().map(|one| right.iter().filter(|other| one > other).count()).sum();
    let spread = (lefts * rights * (lefts + rights + 1.0) / 12.0).sqrt();
    let deviations = (above as f64 - lefts * rights / 2.0) / spread;
    (deviations, quantile(left, 50) / quantile(right, 50))
}

/// The value below which so many hundredths of a sample are; 0 for an empty one.
pub fn quantile(sample: &[f64], hundredths: usize) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * hundredths / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_samples_are_not_apart_and_shifted_ones_are() {
        let sample = |shift: f64| -> Vec<f64> { (0..200).map(|n| f64::from(n * 37 % 200) + shift).collect() };
        let (deviations, ratio) = apart(&sample(100.0), &sample(100.5));
        assert!(deviations.abs() < 1.0 && (0.9..1.1).contains(&ratio), "{deviations} {ratio}");
        let (deviations, ratio) = apart(&sample(200.0), &sample(100.0));
        assert!(deviations > 8.0 && ratio > 1.4, "{deviations} {ratio}");
        assert_eq!((quantile(&sample(0.0), 99), quantile(&[], 50)), (198.0, 0.0));
    }
}
