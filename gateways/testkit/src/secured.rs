//! A real Kafka on loopback that asks who comes: TLS, SCRAM, rights. IO: sockets on loopback.

use crate::Kafka;
use anyhow::{Context as _, Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    AlterUserScramCredentialsRequest, ScramCredentialUpsertion,
};
use kafka_protocol::messages::create_acls_request::{AclCreation, CreateAclsRequest};
use kafka_protocol::messages::{
    AlterUserScramCredentialsResponse, ApiKey, CreateAclsResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use sha2::{Digest as _, Sha512};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// The ports that ask for a name and a password.
#[derive(Clone, Debug)]
pub struct Doors {
    pub(crate) host: String,
    pub(crate) scram: u16,
    pub(crate) elsewhere: u16,
}

impl Doors {
    /// What replaces and completes a broker's settings.
    pub(crate) fn properties(&self, plain: u16, controller: u16, tls: u16) -> String {
        let Self { host, scram, elsewhere } = self;
        let clients = format!(
            "PLAINTEXT://127.0.0.1:{plain},TLS://127.0.0.1:{tls},SCRAM://{host}:{scram},ELSEWHERE://127.0.0.2:{elsewhere}"
        );
        let module = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        format!(
            "listeners={clients},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners={clients}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,SCRAM:SASL_SSL,ELSEWHERE:SASL_SSL\n\
             sasl.enabled.mechanisms=SCRAM-SHA-512\n\
             listener.name.scram.ssl.client.auth=none\n\
             listener.name.scram.scram-sha-512.sasl.jaas.config={module}\n\
             listener.name.elsewhere.ssl.client.auth=none\n\
             listener.name.elsewhere.scram-sha-512.sasl.jaas.config={module}\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\n"
        )
    }
}

/// What a right is about.
#[derive(Clone, Copy, Debug)]
pub enum Right {
    /// Topics that start with this.
    Topics(&'static str),
    /// Groups that start with this.
    Groups(&'static str),
    /// Transactional ids that start with this.
    TransactionalIds(&'static str),
}

/// An operation of Kafka's rights.
#[derive(Clone, Copy, Debug)]
#[repr(i8)]
#[allow(missing_docs, reason = "Kafka's own names")]
pub enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    DescribeConfigs = 10,
    AlterConfigs = 11,
}

/// A Kafka that asks who comes.
pub struct Secured {
    /// The Kafka, as who comes through the plain port sees it.
    pub kafka: Kafka,
    doors: Doors,
}

impl Secured {
    pub(crate) const fn new(kafka: Kafka, doors: Doors) -> Self {
        Self { kafka, doors }
    }

    /// The port with TLS that asks for a name and a password.
    pub fn scram(&self) -> String {
        format!("{}:{}", self.doors.host, self.doors.scram)
    }

    /// The same under a host that is not in its certificate.
    pub fn elsewhere(&self) -> String {
        format!("127.0.0.2:{}", self.doors.elsewhere)
    }

    /// The port that asks for a client's certificate.
    pub fn mutual(&self) -> String {
        self.kafka.tls_config(crate::pki::client_files("".as_ref())).bootstrap
    }

    /// Gives a user rights.
    pub fn allow(&self, user: &str, right: Right, operations: &[Operation]) -> Result<()> {
        let (resource, name) = match right {
            Right::Topics(name) => (2, name),
            Right::Groups(name) => (3, name),
            Right::TransactionalIds(name) => (5, name),
        };
        let creations = operations.iter().map(|operation| {
            AclCreation::default()
                .with_resource_type(resource)
                .with_resource_name(StrBytes::from_static_str(name))
                // prefixed
                .with_resource_pattern_type(4)
                .with_principal(StrBytes::from_string(format!("User:{user}")))
                .with_host(StrBytes::from_static_str("*"))
                .with_operation(*operation as i8)
                // allow
                .with_permission_type(3)
        });
        let request = CreateAclsRequest::default().with_creations(creations.collect());
        let answer: CreateAclsResponse = self.ask(ApiKey::CreateAcls, 3, &request)?;
        for result in answer.results {
            ensure!(result.error_code == 0, "no right was given: {:?}", result.error_message);
        }
        Ok(())
    }

    /// Changes a user's password.
    pub fn change_password(&self, user: &str, password: &str) -> Result<()> {
        const ITERATIONS: i32 = 4096;
        let salt = b"salt of a test";
        let change = ScramCredentialUpsertion::default()
            .with_name(StrBytes::from_string(user.to_owned()))
            // SCRAM-SHA-512
            .with_mechanism(2)
            .with_iterations(ITERATIONS)
            .with_salt(Bytes::from_static(salt))
            .with_salted_password(Bytes::from(salted(password.as_bytes(), salt, ITERATIONS)));
        let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![change]);
        let answer: AlterUserScramCredentialsResponse =
            self.ask(ApiKey::AlterUserScramCredentials, 0, &request)?;
        for result in answer.results {
            ensure!(result.error_code == 0, "the password stays: {:?}", result.error_message);
        }
        Ok(())
    }

    fn ask<C, A>(&self, api: ApiKey, version: i16, call: &C) -> Result<A>
    where
        C: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        let mut socket = TcpStream::connect(("127.0.0.1", self.kafka.port(0)))?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut body = BytesMut::new();
        let header =
            RequestHeader::default().with_request_api_key(api as i16).with_request_api_version(version);
        header.encode(&mut body, C::header_version(version))?;
        call.encode(&mut body, version)?;
        let mut frame = BytesMut::new();
        frame.put_i32(i32::try_from(body.len())?);
        frame.extend_from_slice(&body);
        socket.write_all(&frame)?;
        let mut length = [0; 4];
        socket.read_exact(&mut length)?;
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length))?];
        socket.read_exact(&mut answer)?;
        let mut answer = Bytes::from(answer);
        ResponseHeader::decode(&mut answer, A::header_version(version)).context("no header")?;
        A::decode(&mut answer, version).context("no answer")
    }
}

/// What Kafka keeps of a password: RFC 5802's `Hi` with SHA-512.
fn salted(password: &[u8], salt: &[u8], iterations: i32) -> Vec<u8> {
    let mut last = hmac(password, &[salt, &1_u32.to_be_bytes()].concat());
    let mut all = last.clone();
    for _ in 1..iterations {
        last = hmac(password, &last);
        all.iter_mut().zip(&last).for_each(|(all, last)| *all ^= last);
    }
    all
}

/// RFC 2104 with SHA-512, for keys of at most a block.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let pad = |with: u8| {
        let mut block = [with; 128];
        block.iter_mut().zip(key).for_each(|(block, key)| *block ^= key);
        block
    };
    let inner = Sha512::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha512::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}
