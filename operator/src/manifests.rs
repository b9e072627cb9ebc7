//! Writes the generated manifests, or says where the files differ from what would be written. IO: files.

use crate::rbac;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The first lines of every generated file.
const HEAD: &str = "# Generated from the Rust types by `cargo xtask generate`. Do not edit.\n";

/// Why manifests could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file system.
    #[error("failed to {action} {path}")]
    File {
        /// What was done.
        action: &'static str,
        /// With which file.
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
    let mut list = Vec::new();
    for crd in tidegate_crds::schema::all() {
        let name = format!("{}.yaml", crd.spec.names.plural);
        files.push((format!("crds/{name}"), yaml(&crd)?));
        list.push(name);
    }
    files.push(("crds/kustomization.yaml".to_owned(), kustomization(&list)));
    files.push(("rbac/clusterrole.yaml".to_owned(), yaml(&rbac::cluster_role())?));
    files.push(("rbac/role.yaml".to_owned(), yaml(&rbac::role())?));
    Ok(files)
}

fn kustomization(files: &[String]) -> String {
    let list: String = files.iter().map(|name| format!("- {name}\n")).collect();
    format!("{HEAD}apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{list}")
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
            fs::create_dir_all(parent).map_err(|source| ManifestError::File {
                action: "make",
                path: parent.to_owned(),
                source,
            })?;
        }
        fs::write(&path, content).map_err(|source| ManifestError::File { action: "write", path, source })?;
    }
    Ok(())
}

/// The generated files below `folder` that differ from what would be written.
pub fn drift(folder: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let mut stale = Vec::new();
    for (name, content) in files()? {
        let path = folder.join(name);
        match fs::read_to_string(&path) {
            Ok(there) if there == content => {}
            Ok(_) => stale.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => stale.push(path),
            Err(source) => return Err(ManifestError::File { action: "read", path, source }),
        }
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_has_not_drifted_and_an_edit_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        assert_eq!(drift(folder.path()).unwrap(), Vec::<PathBuf>::new());
        let role = folder.path().join("rbac/role.yaml");
        fs::write(&role, "edited").unwrap();
        assert_eq!(drift(folder.path()).unwrap(), [role]);
    }

    #[test]
    fn the_committed_manifests_are_the_generated_ones() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
        let stale = drift(&folder).unwrap();
        assert!(stale.is_empty(), "run `cargo xtask generate`: {stale:?}");
    }
}
