//! How a device's password is kept: as a hash that says how it was made. The operator makes it, gateways verify.
//!
//! The text is a PHC string, of one of two kinds, and the *password* decides which:
//! - `$hmac-sha256$<salt>$<hash>` for a password that only a machine makes ([`is_machine_made`]: 32 or more
//!   base64url characters). Nobody can try so many passwords, so verifying may be cheap: a microsecond for each of
//!   100,000 devices that come back at once.
//! - `$argon2id$v=19$m=…,t=…,p=…$<salt>$<hash>` (RFC 9106) for any other: whoever gets the hash has to spend the
//!   memory and time of [`Cost::default`] on every guess.
//!
//! **The HMAC's key is the record's own random salt**, not a secret of the platform. A secret key would add nothing
//! for a password that nobody can search anyway, and would have to be mounted into every gateway and to be kept for
//! as long as any hash made with it: changing it would mean to read every password again. What it leaves open: a long
//! password that a person made of 32 such characters (`correct-horse-…`) can be guessed quickly by whoever may read
//! `tg-directory`, which only the operator and gateways can. Sealed credentials (PSKs, which have to be recovered)
//! are another matter and do need a key.
//!
//! Because the password alone decides the kind, a gateway knows from what a device *offers* which hash to compute,
//! whether there is such a device or not: [`Credential::decoy`] stands for those that are not there, and the time
//! that a refusal takes says nothing.

use argon2::password_hash::{Ident, Output, ParamsString, PasswordHash, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::fmt;
use subtle::ConstantTimeEq as _;

/// The longest password, in bytes.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// The shortest password that counts as machine-made, in bytes.
pub const MACHINE_MADE_BYTES: usize = 32;

const HMAC: Ident<'static> = Ident::new_unwrap("hmac-sha256");
const ARGON2ID: Ident<'static> = Ident::new_unwrap("argon2id");
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// The most that a gateway spends on one hash, whatever the directory says: 64 MiB, ten passes, four lanes.
const MOST: Cost = Cost { memory_kib: 64 << 10, passes: 10, lanes: 4 };

/// A random salt, from the operating system's generator.
pub type SaltBytes = [u8; SALT_BYTES];

/// A password's hash. It shows itself in no log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credential {
    method: Method,
    salt: SaltBytes,
    hash: [u8; HASH_BYTES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    HmacSha256,
    Argon2id(Cost),
}

/// What a guess costs with argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for Cost {
    /// 12 MiB and three passes: one of the settings that OWASP holds equal, with little memory, of which a gateway
    /// has a few at a time in its 128 MiB.
    fn default() -> Self {
        Self { memory_kib: 12 << 10, passes: 3, lanes: 1 }
    }
}

/// Why a password cannot be one. The message says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nothing is no secret.
    #[error("the password is empty")]
    Empty,
    /// Too long to be sent.
    #[error("a password has at most 1024 bytes, this one has {0}")]
    TooLong(usize),
    /// The library refused what was checked before.
    #[error("failed to hash the password")]
    Unhashed,
}

/// Why a text is no [`Credential`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// It is no PHC string.
    #[error("failed to read the credential as a PHC string: {0}")]
    Format(argon2::password_hash::Error),
    /// The kind, version, salt's or hash's length is another, or it costs more than a gateway spends.
    #[error("the credential is of a kind that this version does not know")]
    Unknown,
}

/// Whether a password counts as machine-made: 32 or more base64url characters (RFC 4648 §5), which no padding has.
pub fn is_machine_made(password: &[u8]) -> bool {
    let base64url = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    password.len() >= MACHINE_MADE_BYTES && password.iter().all(base64url)
}

/// Whether a device could have this password.
pub const fn check_password(password: &[u8]) -> Result<(), PasswordError> {
    match password.len() {
        0 => Err(PasswordError::Empty),
        length if length > MAX_PASSWORD_BYTES => Err(PasswordError::TooLong(length)),
        _ => Ok(()),
    }
}

impl Credential {
    /// Hashes a password. `salt` has to be random and new. Takes tens of milliseconds for a password that a person
    /// made: not to be called where something else waits.
    pub fn new(password: &[u8], salt: SaltBytes) -> Result<Self, PasswordError> {
        check_password(password)?;
        let mut credential = Self { salt, ..Self::decoy(password) };
        credential.hash =
            credential.compute(password, &mut Memory::default()).ok_or(PasswordError::Unhashed)?;
        Ok(credential)
    }

    /// A credential that no password has, of the kind that `password` would get: for the time that it takes.
    pub fn decoy(password: &[u8]) -> Self {
        let method =
            if is_machine_made(password) { Method::HmacSha256 } else { Method::Argon2id(Cost::default()) };
        Self { method, salt: [0; SALT_BYTES], hash: [0; HASH_BYTES] }
    }

    /// Reads the text of a record.
    pub fn parse(text: &str) -> Result<Self, CredentialError> {
        let phc = PasswordHash::new(text).map_err(CredentialError::Format)?;
        let method = if phc.algorithm == HMAC && phc.version.is_none() && phc.params.is_empty() {
            Method::HmacSha256
        } else if phc.algorithm == ARGON2ID && phc.version == Some(Version::V0x13.into()) {
            let params = Params::try_from(&phc).map_err(CredentialError::Format)?;
            let cost = Cost { memory_kib: params.m_cost(), passes: params.t_cost(), lanes: params.p_cost() };
            let affordable = cost.memory_kib <= MOST.memory_kib && cost.passes <= MOST.passes;
            if !affordable
                || cost.lanes > MOST.lanes
                || !params.keyid().is_empty()
                || !params.data().is_empty()
            {
                return Err(CredentialError::Unknown);
            }
            Method::Argon2id(cost)
        } else {
            return Err(CredentialError::Unknown);
        };
        let mut salt = [0; SALT_BYTES];
        let decoded = phc.salt.map(|text| text.decode_b64(&mut salt).map(<[u8]>::len));
        let hash = phc.hash.and_then(|hash| hash.as_bytes().try_into().ok());
        match (decoded, hash) {
            (Some(Ok(SALT_BYTES)), Some(hash)) => Ok(Self { method, salt, hash }),
            _ => Err(CredentialError::Unknown),
        }
    }

    /// Whether the password is of the kind that this credential was made for: another is wrong, whatever it is.
    pub fn is_for(&self, password: &[u8]) -> bool {
        is_machine_made(password) == (self.method == Method::HmacSha256)
    }

    /// Whether verifying takes a microsecond, and not memory and tens of milliseconds.
    pub fn is_cheap(&self) -> bool {
        self.method == Method::HmacSha256
    }

    /// Whether this is the password. Takes as long for a wrong one as for the right one.
    pub fn verify(&self, password: &[u8], memory: &mut Memory) -> bool {
        let possible = check_password(password).is_ok() && self.is_for(password);
        let offered = self.compute(password, memory);
        offered.is_some_and(|offered| possible & bool::from(self.hash.ct_eq(&offered)))
    }

    /// A hash of this credential and a password under a key of the process's own: to remember that they belong
    /// together without keeping either.
    pub fn fingerprint(&self, key: &[u8; 32], password: &[u8]) -> u128 {
        let cost = match self.method {
            Method::HmacSha256 => [0; 3],
            Method::Argon2id(Cost { memory_kib, passes, lanes }) => [memory_kib, passes, lanes],
        };
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return 0 };
        for number in cost {
            mac.update(&number.to_be_bytes());
        }
        mac.update(&self.salt);
        mac.update(&self.hash);
        mac.update(password);
        let bytes: [u8; HASH_BYTES] = mac.finalize().into_bytes().into();
        bytes.first_chunk().map_or(0, |first| u128::from_be_bytes(*first))
    }

    /// Nothing where the library refuses parameters, all of which were checked before.
    fn compute(&self, password: &[u8], memory: &mut Memory) -> Option<[u8; HASH_BYTES]> {
        match self.method {
            Method::HmacSha256 => {
                // a key of any length is one
                let mut mac = Hmac::<Sha256>::new_from_slice(&self.salt).ok()?;
                mac.update(password);
                Some(mac.finalize().into_bytes().into())
            }
            Method::Argon2id(cost) => {
                let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(HASH_BYTES)).ok()?;
                let blocks = memory.blocks(params.block_count());
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                let mut hash = [0; HASH_BYTES];
                argon2.hash_password_into_with_memory(password, &self.salt, &mut hash, blocks).ok()?;
                Some(hash)
            }
        }
    }
}

/// The memory that argon2id computes in, to be used again for the next password.
#[derive(Default)]
pub struct Memory(Vec<Block>);

impl Memory {
    fn blocks(&mut self, count: usize) -> &mut [Block] {
        if self.0.len() < count {
            self.0.resize(count, Block::new());
        }
        &mut self.0[..count]
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The text of a record.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let salt = SaltString::encode_b64(&self.salt).map_err(|_| fmt::Error)?;
        let (algorithm, version, params) = match self.method {
            Method::HmacSha256 => (HMAC, None, ParamsString::new()),
            Method::Argon2id(cost) => {
                let mut params = ParamsString::new();
                for (name, value) in [("m", cost.memory_kib), ("t", cost.passes), ("p", cost.lanes)] {
                    params.add_decimal(Ident::new_unwrap(name), value).map_err(|_| fmt::Error)?;
                }
                (ARGON2ID, Some(Version::V0x13.into()), params)
            }
        };
        let hash = Output::new(&self.hash).map_err(|_| fmt::Error)?;
        PasswordHash { algorithm, version, params, salt: Some(salt.as_salt()), hash: Some(hash) }.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &[u8] = b"Zm9vYmFyYmF6cXV4-Zm9vYmFyYmF6_X8";

    fn verify(credential: &Credential, password: &[u8]) -> bool {
        credential.verify(password, &mut Memory::default())
    }

    #[test]
    fn the_password_alone_decides_the_kind() {
        for (password, machine) in [
            (MACHINE, true),
            (&MACHINE[1..], false),
            (b"0123456789abcdef0123456789abcdef", true),
            (b"0123456789abcdef0123456789abcde=", false),
            (b"correct horse battery staple, and a lot more", false),
            (b"secret", false),
        ] {
            let credential = Credential::new(password, [7; 16]).unwrap();
            assert_eq!((is_machine_made(password), credential.is_cheap()), (machine, machine));
            assert!(verify(&credential, password));
            let text = credential.to_string();
            assert!(text.starts_with(if machine {
                "$hmac-sha256$"
            } else {
                "$argon2id$v=19$m=12288,t=3,p=1$"
            }));
            assert_eq!(Credential::parse(&text).unwrap(), credential, "{text}");
            assert!(text.len() < 110, "{text}");
        }
    }

    #[test]
    fn no_other_password_is_right() {
        let mut memory = Memory::default();
        for right in [MACHINE, b"secret"] {
            let credential = Credential::new(right, [1; 16]).unwrap();
            let long = [b'a'; MAX_PASSWORD_BYTES + 1];
            for wrong in [
                b"".as_slice(),
                b"Secret",
                b"secret ",
                &MACHINE[1..],
                b"0123456789abcdef0123456789abcdef",
                &long,
            ] {
                assert!(!credential.verify(wrong, &mut memory), "{wrong:?}");
            }
            assert!(credential.verify(right, &mut memory));
            assert_ne!(Credential::new(right, [2; 16]).unwrap(), credential);
        }
    }

    #[test]
    fn a_fingerprint_belongs_to_one_credential_one_password_and_one_key() {
        let credential = Credential::new(MACHINE, [1; 16]).unwrap();
        let other = Credential::new(MACHINE, [2; 16]).unwrap();
        let fingerprint = credential.fingerprint(&[1; 32], MACHINE);
        assert_eq!(credential.fingerprint(&[1; 32], MACHINE), fingerprint);
        for different in [
            credential.fingerprint(&[1; 32], &MACHINE[1..]),
            credential.fingerprint(&[2; 32], MACHINE),
            other.fingerprint(&[1; 32], MACHINE),
        ] {
            assert_ne!(different, fingerprint);
        }
    }

    #[test]
    fn a_decoy_is_of_the_offered_passwords_kind_and_lets_nobody_in() {
        for password in [MACHINE, b"secret", b""] {
            let decoy = Credential::decoy(password);
            assert!(decoy.is_for(password) && !verify(&decoy, password));
        }
    }

    /// Computed by Python's `hmac` and by the `Argon2id` of its `cryptography`.
    #[test]
    fn hashes_are_those_that_other_implementations_make() {
        let hmac = Credential::new(MACHINE, *b"somesalt16bytes!").unwrap().to_string();
        assert_eq!(hmac, "$hmac-sha256$c29tZXNhbHQxNmJ5dGVzIQ$rhj7g6Qa+/9XxlSxrhJTcfEAclIOC7QI9CUkoIwXb0g");
        let argon = Credential::new(b"password", *b"somesalt16bytes!").unwrap().to_string();
        let hash = "z0owaBzCoBnSGQ8HNG65OBQhoJYqf5BOb+2zNoOEl8c";
        assert_eq!(argon, format!("$argon2id$v=19$m=12288,t=3,p=1$c29tZXNhbHQxNmJ5dGVzIQ${hash}"));
    }

    #[test]
    fn what_is_no_credential_of_ours_is_refused() {
        let good = Credential::new(b"secret", [7; 16]).unwrap().to_string();
        assert!(matches!(Credential::parse(""), Err(CredentialError::Format(_))));
        assert!(matches!(Credential::parse("secret"), Err(CredentialError::Format(_))));
        for (from, to) in [
            ("argon2id", "argon2i"),
            ("v=19", "v=16"),
            ("m=12288", "m=4000000"),
            ("t=3", "t=4000000"),
            ("p=1", "p=200"),
        ] {
            let text = good.replace(from, to);
            assert!(Credential::parse(&text).is_err(), "{text}");
        }
        for text in
            ["$hmac-sha256$c2hvcnQ", "$hmac-sha256$c2hvcnQ$c2hvcnRzaG9ydHNob3J0", "$hmac-sha1$AAAA$AAAA"]
        {
            assert!(Credential::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_credential_shows_itself_in_no_log() {
        let credential = Credential::new(MACHINE, [7; 16]).unwrap();
        assert_eq!(format!("{credential:?}"), "(hidden)");
    }
}
