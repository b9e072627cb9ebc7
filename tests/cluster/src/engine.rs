//! The container engine of a person who has one: images out of it, for the local cluster's nodes. Does IO.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{run, succeeds};
use crate::files;
use crate::images::Image;

/// `docker` or `podman`, whichever answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    program: &'static str,
}

impl Engine {
    /// Looks for an engine that works.
    ///
    /// # Errors
    /// When there is none.
    pub fn find() -> Result<Self> {
        ["docker", "podman"]
            .into_iter()
            .find(|program| succeeds(Command::new(program).arg("info")))
            .map(|program| Self { program })
            .context("neither docker nor podman answers: start one of them, or name an archive that `docker save` wrote")
    }

    /// Writes the image that the engine knows as `reference` to an archive in `folder`.
    ///
    /// # Errors
    /// When the engine does not have it.
    pub fn save(self, reference: &str, folder: &Path) -> Result<PathBuf> {
        files::make_dir(folder)?;
        let archive = folder.join(format!("saved-{}.tar", reference.replace(['/', ':', '@'], "-")));
        run(Command::new(self.program).args(["save", "-o"]).arg(&archive).arg(reference))
            .with_context(|| format!("failed to get {reference} out of {}", self.program))?;
        Ok(archive)
    }
}

/// The images in an archive that `docker save` wrote.
///
/// # Errors
/// When it is none, or names no image.
pub fn images_in(archive: &Path) -> Result<Vec<Image>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        repo_tags: Option<Vec<String>>,
    }
    let work = || -> Result<Vec<Image>> {
        let mut tar = tar::Archive::new(std::fs::File::open(archive)?);
        for entry in tar.entries()? {
            let entry = entry?;
            if entry.path()?.as_os_str() == "manifest.json" {
                let manifest: Vec<Entry> = serde_json::from_reader(entry)?;
                let tags = manifest.into_iter().flat_map(|entry| entry.repo_tags.unwrap_or_default());
                return Ok(tags.map(|reference| Image { reference, archive: archive.to_owned() }).collect());
            }
        }
        bail!("it holds no manifest.json")
    };
    let images =
        work().with_context(|| format!("failed to read {} as an image archive", archive.display()))?;
    if images.is_empty() {
        bail!("{} names no image: save it by name and tag", archive.display());
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Config, Layer, write};

    #[test]
    fn an_archive_tells_which_image_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("x.tar");
        write(&Layer::default().with_folder("/tmp", 0o1777), &Config::default(), "tidegate/x:1", &archive)
            .unwrap();
        assert_eq!(images_in(&archive).unwrap(), [Image { reference: "tidegate/x:1".into(), archive }]);
    }

    #[test]
    fn a_file_that_is_no_archive_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("readme");
        std::fs::write(&file, "no tar").unwrap();
        assert!(images_in(&file).unwrap_err().to_string().contains("readme"));
    }
}
