//! The files that every broker's pod mounts from the immutable ConfigMap. Pure.

use super::properties::{Paths, Settings, render};
use std::collections::BTreeMap;

/// The start script's file.
pub const START: &str = "start.sh";
/// The settings that all nodes share.
pub const PROPERTIES: &str = "server.properties";
/// Logging, for images that use log4j2.
pub const LOG4J: &str = "log4j2.properties";

/// What the Java runtime's own security file says otherwise: it goes before flags.
pub const JAVA_SECURITY: &str = "java.security";

/// A pod that moves keeps its name and changes its address, and a lookup that failed says nothing about the next one: Java
/// would keep to it for 10 s, and controllers lose their elections for as long.
const JAVA_SECURITY_TEXT: &str = "\
networkaddress.cache.ttl=5
networkaddress.cache.negative.ttl=1
";

const LOG4J_TEXT: &str = "\
rootLogger.level = info
rootLogger.appenderRef.stdout.ref = stdout
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d{yyyy-MM-dd'T'HH:mm:ss.SSSXXX} %p %c{1} - %m%n
";

/// All files by name.
pub fn files(settings: &Settings<'_>, paths: &Paths) -> BTreeMap<String, String> {
    BTreeMap::from([
        (START.to_owned(), include_str!("start.sh").to_owned()),
        (PROPERTIES.to_owned(), render(settings, paths)),
        (LOG4J.to_owned(), LOG4J_TEXT.to_owned()),
        (JAVA_SECURITY.to_owned(), JAVA_SECURITY_TEXT.to_owned()),
    ])
}
