//! Runs second by second as pictures: a panel for each figure, one above the other, with a line at each mark. Pure but
//! for [`pictures`], which reads what campaigns wrote below `docs/reports/timelines`.

use crate::process::root;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

const FOLDER: &str = "docs/reports/timelines";
/// The whole picture's width, what lies left of its panels, a panel's height, and the space above each.
const WIDTH: f64 = 900.0;
const LEFT: f64 = 60.0;
const HEIGHT: f64 = 70.0;
const ABOVE: f64 = 24.0;
/// Space for the title and the marks' names.
const TOP: f64 = 46.0;

/// Every timeline's picture: the path below the root → its text.
pub fn pictures() -> Result<BTreeMap<PathBuf, String>> {
    let mut pictures = BTreeMap::new();
    let Ok(folders) = std::fs::read_dir(root().join(FOLDER)) else { return Ok(pictures) };
    for folder in folders {
        let folder = folder?;
        for entry in std::fs::read_dir(folder.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Some(name) = path.file_stem()
            {
                let text = std::fs::read(&path)?;
                let run = serde_json::from_slice(&text)
                    .with_context(|| format!("{} is no JSON document", path.display()))?;
                let place = PathBuf::from(FOLDER).join(folder.file_name());
                pictures.insert(place.join(format!("{}.svg", name.to_string_lossy())), picture(&run));
            }
        }
    }
    Ok(pictures)
}

/// `{case, marks: [{name, at_s}], per_second: {figure: [number]}}` as SVG; figures that are always 0 are left out.
fn picture(run: &Value) -> String {
    let numbers = |column: &Value| -> Vec<f64> {
        column.as_array().into_iter().flatten().map(|value| value.as_f64().unwrap_or_default()).collect()
    };
    let figures = run["per_second"].as_object().into_iter().flatten();
    let panels: Vec<(&str, Vec<f64>)> = figures
        .map(|(name, column)| (name.as_str(), numbers(column)))
        .filter(|(_, column)| column.iter().any(|value| *value != 0.0))
        .collect();
    let seconds = panels.iter().map(|(_, column)| column.len()).max().unwrap_or(1).max(1);
    let x = |second: f64| LEFT + (WIDTH - LEFT - 10.0) * second / whole(seconds);
    let height = TOP + (HEIGHT + ABOVE) * whole(panels.len()) + 24.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"14\" font-size=\"13\">{}</text>", text(&run["case"]));
    for mark in run["marks"].as_array().into_iter().flatten() {
        let at = x(mark["at_s"].as_f64().unwrap_or_default());
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\" stroke=\"firebrick\" stroke-dasharray=\"3 3\"/><text x=\"{at:.1}\" y=\"{:.1}\" fill=\"firebrick\">{}</text>",
            height - 24.0,
            TOP - 8.0,
            text(&mark["name"])
        );
    }
    for (place, (name, column)) in panels.iter().enumerate() {
        let bottom = TOP + (HEIGHT + ABOVE) * whole(place + 1);
        let most = column.iter().copied().fold(0.0, f64::max);
        let mut points = String::new();
        for (second, value) in column.iter().enumerate() {
            let _ = write!(points, "{:.1},{:.1} ", x(whole(second)), bottom - HEIGHT * value / most);
        }
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{:.1}\">{}</text><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{most}</text><line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{bottom:.1}\" y2=\"{bottom:.1}\" stroke=\"silver\"/><polyline fill=\"none\" stroke=\"steelblue\" points=\"{}\"/>",
            bottom - HEIGHT - 6.0,
            title(name),
            LEFT - 6.0,
            bottom - HEIGHT + 8.0,
            WIDTH - 10.0,
            points.trim_end()
        );
    }
    for second in (0..=seconds).step_by(30) {
        let at = x(whole(second));
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second} s</text>",
            height - 8.0
        );
    }
    svg + "</svg>\n"
}

/// What a panel shows: a figure that says its unit, or a number of pods, is what it is in each second; others are counted.
fn title(name: &str) -> String {
    let is_state = name == "replicas" || name.ends_with("_ms") || name.ends_with("_percent");
    if is_state { name.to_owned() } else { format!("{name} per second") }
}

/// Counts here are small.
fn whole(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_run_becomes_a_panel_for_each_figure_that_is_ever_more_than_nothing() {
        let run = json!({"case": "a < b", "marks": [{"name": "node1", "at_s": 1.0}],
            "per_second": {"acknowledged": [100, 0, 50], "refused": [0, 0, 0], "replicas": [1, 2, 2]}});
        let svg = picture(&run);
        assert!(
            svg.contains("a &lt; b") && svg.contains(">node1<") && svg.contains("acknowledged per second")
        );
        assert!(!svg.contains("refused") && svg.contains(">replicas<"), "{svg}");
        let points = svg.split_once("points=\"").unwrap().1.split('"').next().unwrap();
        let heights: Vec<f64> =
            points.split(' ').map(|point| point.split_once(',').unwrap().1.parse().unwrap()).collect();
        assert!((heights[1] - heights[0] - HEIGHT).abs() < 0.2, "{heights:?}");
        assert!((heights[1] - heights[2] - HEIGHT / 2.0).abs() < 0.2, "{heights:?}");
    }
}
