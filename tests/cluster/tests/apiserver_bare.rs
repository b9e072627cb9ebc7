//! The API server that other crates test against.

use std::process::Command;

use tidegate_cluster::BareControlPlane;
use tidegate_cluster::command::run;

#[test]
fn a_bare_api_server_answers_and_is_gone_when_dropped() {
    let bare = BareControlPlane::start().unwrap();
    let kubeconfig = bare.kubeconfig().to_owned();
    let created = run(bare.kubectl().args(["create", "namespace", "plant"])).unwrap();
    assert!(created.contains("namespace/plant created"), "{created}");
    let refused = run(bare.kubectl().args(["create", "namespace", "Not_A_Name"])).unwrap_err();
    assert!(refused.to_string().contains("RFC 1123"), "{refused}");
    drop(bare);
    assert!(!kubeconfig.exists());
    let rest =
        run(Command::new("sh").args(["-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; true"]))
            .unwrap();
    let folder = kubeconfig.parent().unwrap().to_string_lossy().into_owned();
    assert!(!rest.contains(&folder), "a process still uses {folder}");
}
