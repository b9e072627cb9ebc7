//! What is generated from the types: definitions, rights, alerts, the reference pages of fields and alerts. IO: files.

use crate::{alerts, rbac, reference};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The first lines of every generated file.
const HEAD: &str = "# Generated from the Rust types by `cargo xtask generate`. Do not edit.\n";

/// Pages of the book's folder `docs/reference`: every field, every alert.
const PAGES: [&str; 2] = ["docs/resources.md", "docs/alerts.md"];

/// Why manifests could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file system.
    #[error("failed to write {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A value that YAML cannot hold.
    #[error("failed to write YAML")]
    Yaml(#[from] serde_yaml::Error),
    /// A value that JSON cannot hold.
    #[error("failed to write JSON")]
    Json(#[from] serde_json::Error),
}

/// All generated files: path below the manifests' folder, content.
pub fn files() -> Result<Vec<(String, String)>, ManifestError> {
    let mut files = Vec::new();
    let (mut list, mut definitions) = (Vec::new(), Vec::new());
    for crd in tidegate_crds::schema::all() {
        definitions.push(serde_json::to_value(&crd)?);
        let name = format!("{}.yaml", crd.spec.names.plural);
        files.push((format!("crds/{name}"), yaml(&crd)?));
        list.push(name);
    }
    files.push(("crds/kustomization.yaml".to_owned(), kustomization(&list)));
    let rights = ["clusterrole.yaml", "nodes.yaml", "role.yaml"].map(str::to_owned);
    files.push(("rbac/kustomization.yaml".to_owned(), kustomization(&rights)));
    files.push(("rbac/clusterrole.yaml".to_owned(), yaml(&rbac::cluster_role())?));
    files.push(("rbac/role.yaml".to_owned(), yaml(&rbac::role())?));
    let leases = yaml(&rbac::node_leases_role())?.replacen(HEAD, "", 1);
    let nodes = format!("{}---\n{leases}", yaml(&rbac::nodes_role())?);
    files.push(("rbac/nodes.yaml".to_owned(), nodes));
    files.push(("monitoring/rules.yaml".to_owned(), yaml(&alerts::rule())?));
    let pages = [reference::page(&definitions), alerts::page()];
    files.extend(PAGES.into_iter().map(str::to_owned).zip(pages));
    Ok(files)
}

fn kustomization(files: &[String]) -> String {
    let list: Vec<_> = files.iter().map(|name| format!("- {name}")).collect();
    let list = list.join("\n");
    format!("{HEAD}apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{list}\n")
}

/// One object as YAML with whole numbers written as such.
fn yaml(object: &impl serde::Serialize) -> Result<String, ManifestError> {
    let mut value = serde_json::to_value(object)?;
    whole_numbers(&mut value);
    Ok(format!("{HEAD}{}", serde_yaml::to_string(&value)?))
}

fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            // Bounds in schemas are floats in the API's types.
            let whole =
                number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15);
            if let Some(Ok(integer)) = whole.map(|float| format!("{float:.0}").parse::<i64>()) {
                *number = integer.into();
            }
        }
        Value::Array(all) => all.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// Writes all generated files below `folder`.
pub fn write(folder: &Path) -> Result<(), ManifestError> {
    for (name, content) in files()? {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .map_err(|source| ManifestError::File { path: parent.to_owned(), source })?;
        }
        fs::write(&path, content).map_err(|source| ManifestError::File { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_manifests_are_the_generated_ones() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
        for (name, content) in files().unwrap() {
            let page = name.strip_prefix("docs/").map(|page| format!("../docs/reference/{page}"));
            let at = page.as_deref().unwrap_or(&name);
            let there = fs::read_to_string(folder.join(at)).unwrap_or_default();
            assert!(there == content, "{name} is not what the types say: run `cargo xtask generate`");
        }
    }

    #[test]
    fn whole_numbers_are_written_as_such() {
        let mut value = serde_json::json!({"maximum": 65535.0, "ratio": 0.5, "count": 3});
        whole_numbers(&mut value);
        assert_eq!(value, serde_json::json!({"maximum": 65535, "ratio": 0.5, "count": 3}));
    }
}
