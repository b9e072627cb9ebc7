//! Cables and what is lost on them: links of the bridge, and its packet filter. The rules are pure, the rest is IO.
//!
//! The filter is the bridge's own on the host, not one in a node: it sees every frame, whatever its addresses, and what
//! it does outlives a node's power-off.

use std::fmt::Write;
use std::process::Command;

use anyhow::{Context, Result};

use super::Fault;
use crate::command::{run_with_input, succeeds};
use crate::host::{ip, link_exists};

/// The control plane and the outside world, where a fault takes another node.
pub const HOST: &str = "host";

const TABLE: &str = "tidegate_faults";

/// The cable of a node, unplugged at the bridge; a node that is off has none.
pub(super) fn link(name: &str, up: bool) -> Result<()> {
    if !link_exists(name) {
        return Ok(());
    }
    ip(&["link", "set", name, if up { "up" } else { "down" }])
}

/// Makes the filter do these faults and no others.
pub(super) fn apply(faults: &[Fault]) -> Result<()> {
    if faults.is_empty() && !succeeds(Command::new("nft").args(["list", "table", "bridge", TABLE])) {
        return Ok(());
    }
    run_with_input(Command::new("nft").args(["-f", "-"]), rules(faults).as_bytes())
        .context("failed to change the bridge's packet filter")
        .map(drop)
}

/// What `nft` reads: the table of before goes and this one comes in one step.
fn rules(faults: &[Fault]) -> String {
    // Deleting needs one to be there.
    let mut text = format!("table bridge {TABLE}\ndelete table bridge {TABLE}\n");
    if faults.is_empty() {
        return text;
    }
    // Frames between nodes are forwarded, those between a node and the host come in and go out.
    let (mut forward, mut input, mut output) = (String::new(), String::new(), String::new());
    for fault in faults {
        match fault {
            Fault::Cut { node, other } if other == HOST => {
                let _ = writeln!(input, "    iifname \"{}\" drop", link_of(node));
                let _ = writeln!(output, "    oifname \"{}\" drop", link_of(node));
            }
            Fault::Cut { node, other } => {
                let (one, two) = (link_of(node), link_of(other));
                let _ = writeln!(forward, "    iifname \"{one}\" oifname \"{two}\" drop");
                let _ = writeln!(forward, "    iifname \"{two}\" oifname \"{one}\" drop");
            }
            Fault::Loss { node, percent } => {
                let link = link_of(node);
                let lost = format!("numgen random mod 100 < {percent} drop");
                let _ = writeln!(forward, "    iifname \"{link}\" {lost}\n    oifname \"{link}\" {lost}");
                let _ = writeln!(input, "    iifname \"{link}\" {lost}");
                let _ = writeln!(output, "    oifname \"{link}\" {lost}");
            }
            _ => {}
        }
    }
    let _ = writeln!(text, "table bridge {TABLE} {{");
    for (hook, rules) in [("forward", forward), ("input", input), ("output", output)] {
        let _ = writeln!(
            text,
            "  chain {hook} {{\n    type filter hook {hook} priority filter; policy accept;\n{rules}  }}"
        );
    }
    text.push_str("}\n");
    text
}

/// As [`crate::plan::NodePlan::link`], for a name that was checked when the fault was made.
fn link_of(node: &str) -> String {
    format!("tg-{node}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn cut(node: &str, other: &str) -> Fault {
        Fault::Cut { node: node.into(), other: other.into() }
    }

    #[test]
    fn a_cut_drops_both_directions_and_nothing_else() {
        let text = rules(&[cut("node1", "node2")]);
        assert!(text.contains("iifname \"tg-node1\" oifname \"tg-node2\" drop"), "{text}");
        assert!(text.contains("iifname \"tg-node2\" oifname \"tg-node1\" drop"), "{text}");
        assert_eq!(text.matches("drop").count(), 2, "{text}");
    }

    #[test]
    fn a_cut_from_the_host_leaves_other_nodes_alone() {
        let text = rules(&[cut("node3", HOST)]);
        let forward = text.split("chain forward").nth(1).unwrap().split("chain").next().unwrap();
        assert!(!forward.contains("drop"), "{text}");
        assert!(text.contains("iifname \"tg-node3\" drop") && text.contains("oifname \"tg-node3\" drop"));
    }

    #[test]
    fn loss_hits_each_frame_once_whoever_is_at_the_other_end() {
        let text = rules(&[Fault::Loss { node: "node1".into(), percent: 20 }]);
        assert_eq!(text.matches("< 20 drop").count(), 4, "{text}");
    }

    #[test]
    fn without_faults_no_table_stays() {
        assert_eq!(rules(&[]), "table bridge tidegate_faults\ndelete table bridge tidegate_faults\n");
    }

    #[test]
    fn the_rules_name_the_links_that_nodes_have() {
        for node in Plan::new(2).unwrap().nodes() {
            assert_eq!(link_of(&node.name()), node.link());
        }
    }
}
