//! The cluster's certificates and kubeconfigs, made with `openssl`. Does IO.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{run, run_with_input};
use crate::files;

/// A folder of keys and certificates.
#[derive(Clone, Debug)]
pub struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// Makes the authorities and the key that signs service accounts' tokens, unless they are there.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn open(dir: &Path) -> Result<Self> {
        let pki = Self { dir: dir.to_owned() };
        files::make_dir(dir)?;
        pki.authority("ca", "tidegate-cluster")?;
        pki.authority("front", "tidegate-cluster-front")?;
        let (key, public) = (pki.path("sa.key"), pki.path("sa.pub"));
        if !public.exists() {
            run(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048"))?;
            run(Command::new("openssl").args(["rsa", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public))?;
        }
        Ok(pki)
    }

    /// The path of one file.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    fn authority(&self, name: &str, common_name: &str) -> Result<()> {
        let (key, certificate) = (self.path(&format!("{name}.key")), self.path(&format!("{name}.crt")));
        if certificate.exists() {
            return Ok(());
        }
        run(Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "3650",
            ])
            .args([
                "-subj",
                &format!("/CN={common_name}"),
                "-addext",
                "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
            ])
            .arg("-keyout")
            .arg(key)
            .arg("-out")
            .arg(certificate))
        .map(drop)
    }

    /// Makes `<name>.key` and `<name>.crt`, signed by `authority`, unless they are there. `subject` as `openssl`
    /// writes it (`/O=system:masters/CN=admin`), `names` as its `subjectAltName` (may be empty).
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn issue(&self, name: &str, authority: &str, subject: &str, names: &str) -> Result<()> {
        let (key, certificate) = (self.path(&format!("{name}.key")), self.path(&format!("{name}.crt")));
        if certificate.exists() {
            return Ok(());
        }
        let request = run(Command::new("openssl")
            .args([
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                subject,
                "-keyout",
            ])
            .arg(key))?;
        let extensions = self.path(&format!("{name}.ext"));
        let alternative = if names.is_empty() { String::new() } else { format!("subjectAltName={names}\n") };
        files::write(&extensions, format!("extendedKeyUsage=serverAuth,clientAuth\n{alternative}"), 0o600)?;
        let signed = run_with_input(
            Command::new("openssl")
                .args(["x509", "-req", "-days", "3650", "-CA"])
                .arg(self.path(&format!("{authority}.crt")))
                .arg("-CAkey")
                .arg(self.path(&format!("{authority}.key")))
                .arg("-extfile")
                .arg(&extensions),
            request.as_bytes(),
        )?;
        fs::remove_file(&extensions).context("failed to tidy up after openssl")?;
        files::write(&certificate, signed, 0o644)
    }

    /// Issues a client certificate and writes `<name>.kubeconfig` with it.
    ///
    /// # Errors
    /// When `openssl` or the file system fails.
    pub fn kubeconfig(&self, name: &str, subject: &str, server: &str) -> Result<PathBuf> {
        self.issue(name, "ca", subject, "")?;
        let path = self.path(&format!("{name}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters: [{{name: tidegate, cluster: {{server: \"{server}\", certificate-authority-data: {}}}}}]\n\
             users: [{{name: {name}, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n\
             contexts: [{{name: tidegate, context: {{cluster: tidegate, user: {name}}}}}]\n\
             current-context: tidegate\n",
            self.encoded("ca.crt")?,
            self.encoded(&format!("{name}.crt"))?,
            self.encoded(&format!("{name}.key"))?,
        );
        files::write(&path, text, 0o600)?;
        Ok(path)
    }

    /// A file in base64, as objects of the API hold it.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn encoded(&self, file: &str) -> Result<String> {
        let encoded = run(Command::new("openssl").args(["base64", "-A", "-in"]).arg(self.path(file)))?;
        Ok(encoded.trim().to_owned())
    }
}
