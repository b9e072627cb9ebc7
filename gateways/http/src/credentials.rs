//! Who sends a request: the certificate of its connection, or `Authorization: Basic` (RFC 7617). Pure.

use crate::problem::Problem;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use tidegate_core::{DeviceCertificate, NotAdmitted, Proof, Secret};

/// A username and a password. They show themselves in no log.
pub(crate) struct Credentials {
    username: String,
    password: Vec<u8>,
}

impl Credentials {
    /// What a request says, if anything. What cannot be read is nobody's.
    pub fn read(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let credentials = value.to_str().ok().filter(|_| values.next().is_none()).and_then(Self::parse);
        credentials.map(Some).ok_or(Problem::WrongCredentials)
    }

    fn parse(value: &str) -> Option<Self> {
        let (scheme, encoded) = value.split_once(' ')?;
        let mut decoded =
            scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(encoded.trim()))?.ok()?;
        // a username has no colon (RFC 7617 §2)
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let password = decoded.split_off(colon + 1);
        decoded.truncate(colon);
        Some(Self { username: String::from_utf8(decoded).ok()?, password })
    }

    /// What core takes.
    pub fn proof<'a>(credentials: Option<&'a Self>, certificate: Option<&'a DeviceCertificate>) -> Proof<'a> {
        if let Some(certificate) = certificate {
            let username = credentials.map(|credentials| credentials.username.as_str());
            return Proof::Certificate { certificate, username };
        }
        credentials.map_or(Proof::Nothing, |Self { username, password }| Proof::Password {
            username,
            password: Secret(password),
        })
    }
}

/// What a device is told that is not let in.
pub(crate) fn problem(why: NotAdmitted) -> Problem {
    match why {
        NotAdmitted::Nobody => Problem::NoCredentials,
        NotAdmitted::Wrong => Problem::WrongCredentials,
        NotAdmitted::Disabled => Problem::DeviceDisabled,
        NotAdmitted::NotDeclared
        | NotAdmitted::CertificateExpired
        | NotAdmitted::AuthorityGone
        | NotAdmitted::NoName
        | NotAdmitted::OtherName => Problem::Certificate { reason: why.reason(), detail: why.to_string() },
        NotAdmitted::TooOften { after } => Problem::TooManyFailures { after_s: after.as_secs() + 1 },
        NotAdmitted::TooMany => Problem::TooManyConnections,
        NotAdmitted::Busy => Problem::Busy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(values: &[&str]) -> Result<Option<(String, Vec<u8>)>, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        Ok(Credentials::read(&headers)?.map(|found| (found.username, found.password)))
    }

    #[test]
    fn username_and_password_are_what_stands_before_and_behind_the_first_colon() {
        assert_eq!(read(&[]), Ok(None));
        // RFC 7617 §2
        let example = read(&["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]).unwrap().unwrap();
        assert_eq!(example, ("Aladdin".to_owned(), b"open sesame".to_vec()));
        let value = format!("bASIC {}", STANDARD.encode("meters/Zähler:a:b"));
        assert_eq!(read(&[&value]).unwrap().unwrap(), ("meters/Zähler".to_owned(), b"a:b".to_vec()));
    }

    #[test]
    fn what_cannot_be_read_is_nobodys() {
        let (no_colon, no_text) = (STANDARD.encode("meters"), STANDARD.encode(b"\xFF:x"));
        for values in [
            vec!["Basic"],
            vec!["Basic "],
            vec!["Basic ***"],
            vec!["Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ=="],
            vec!["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="],
            vec![&format!("Basic {no_colon}")],
            vec![&format!("Basic {no_text}")],
        ] {
            assert_eq!(read(&values), Err(Problem::WrongCredentials), "{values:?}");
        }
    }
}
