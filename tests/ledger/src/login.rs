//! Who a client of the ledger is: a device of a fleet, with its password. Reads the password's file.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A device's username and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// `<fleet>/<device>`.
    pub username: String,
    /// Its password.
    pub password: String,
}

/// The password stays out of logs and panics.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Its file cannot be read.
    #[error("failed to read the password's file {0}")]
    File(PathBuf, #[source] io::Error),
    /// Neither a file nor the variable has it.
    #[error("failed to find the password of {0}: name its file, or set TIDEGATE_PASSWORD")]
    Nowhere(String),
}

/// How the command line says who the clients are. The password is no argument: those can be seen by everybody on a machine.
#[derive(Clone, clap::Args)]
pub struct LoginArguments {
    /// Who the clients are, as `<fleet>/<device>`; without it they say nothing, as anonymous devices do
    #[arg(long)]
    username: Option<String>,
    /// A file with the password; without it: the variable `TIDEGATE_PASSWORD`
    #[arg(long, requires = "username")]
    password_file: Option<PathBuf>,
    /// The password. Set by its variable only
    #[arg(skip = std::env::var("TIDEGATE_PASSWORD").ok())]
    password: Option<String>,
}

impl LoginArguments {
    /// The username with its password, if there is one.
    ///
    /// # Errors
    /// When there is a username without a password.
    pub fn login(&self) -> Result<Option<Login>, LoginError> {
        let Some(username) = self.username.clone() else { return Ok(None) };
        let password = match (&self.password_file, &self.password) {
            (Some(path), _) => from_file(path)?,
            (None, Some(password)) => password.clone(),
            (None, None) => return Err(LoginError::Nowhere(username)),
        };
        Ok(Some(Login { username, password }))
    }
}

/// Line breaks at the end are the editor's.
fn from_file(path: &Path) -> Result<String, LoginError> {
    let text = fs::read_to_string(path).map_err(|error| LoginError::File(path.to_owned(), error))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(username: Option<&str>, file: Option<&Path>, password: Option<&str>) -> LoginArguments {
        LoginArguments {
            username: username.map(str::to_owned),
            password_file: file.map(Path::to_owned),
            password: password.map(str::to_owned),
        }
    }

    #[test]
    fn a_password_comes_from_its_file_before_the_variable_and_never_stands_in_a_log() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "from the file\r\n").unwrap();
        let login = arguments(Some("f/d"), Some(file.path()), Some("variable")).login().unwrap().unwrap();
        assert_eq!((login.username.as_str(), login.password.as_str()), ("f/d", "from the file"));
        assert!(!format!("{login:?}").contains("from the file"));
        let login = arguments(Some("f/d"), None, Some("variable")).login().unwrap().unwrap();
        assert_eq!(login.password, "variable");
    }

    #[test]
    fn who_says_no_name_is_anonymous_and_a_name_needs_a_password() {
        assert_eq!(arguments(None, None, Some("variable")).login().unwrap(), None);
        assert!(arguments(Some("f/d"), None, None).login().is_err());
        assert!(arguments(Some("f/d"), Some(Path::new("/nowhere/at/all")), None).login().is_err());
    }
}
