//! The flags of a broker's Java process. Pure.

use super::files::{JAVA_SECURITY, LOG4J};

/// MiB in bytes.
const MIB: i64 = 1024 * 1024;

/// What the pod gets, as far as it is bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Memory limit (else request), in bytes.
    pub memory: Option<i64>,
    /// CPU limit (else request), in thousandths of a core.
    pub millicpu: Option<i64>,
}

/// The heap in MiB: half of the pod's memory, because Kafka lives from the page cache and that counts against the
/// same limit; beyond 6 GiB a broker gains nothing.
fn heap(memory: Option<i64>) -> i64 {
    let bytes = memory.unwrap_or(1024 * MIB) / 2;
    (bytes / MIB).clamp(256, 6144)
}

/// The flags of the broker process, ready to be split at spaces. `files` is the folder with the mounted files, one of
/// which is for images that log with log4j2; the flags of slf4j-simple serve the others.
pub fn flags(room: Room, files: &str) -> String {
    let heap = heap(room.memory);
    let millicpu = room.millicpu.unwrap_or(1000);
    let mut flags = vec![format!("-Xms{}m", heap / 2), format!("-Xmx{heap}m")];
    if millicpu >= 2000 {
        flags.push("-XX:+UseG1GC".to_owned());
        flags.push("-XX:MaxGCPauseMillis=20".to_owned());
    } else {
        flags.push("-XX:+UseSerialGC".to_owned());
    }
    if millicpu < 1000 {
        // The optimising compiler would take the little there is from the first minutes.
        flags.push("-XX:TieredStopAtLevel=1".to_owned());
    }
    flags.extend(
        [
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.logFile=System.out",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            "-Dorg.slf4j.simpleLogger.showThreadName=false",
        ]
        .map(str::to_owned),
    );
    flags.push(format!("-Djava.security.properties={files}/{JAVA_SECURITY}"));
    flags.push(format!("-Dlog4j2.configurationFile={files}/{LOG4J}"));
    flags.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_broker_gets_half_its_memory_and_the_serial_collector() {
        let flags = flags(Room { memory: Some(1024 * MIB), millicpu: Some(250) }, "/l");
        assert!(flags.starts_with("-Xms256m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "), "{flags}");
    }

    #[test]
    fn a_large_broker_gets_g1_and_no_more_heap_than_it_can_use() {
        let flags = flags(Room { memory: Some(64 * 1024 * MIB), millicpu: Some(4000) }, "/l");
        assert!(flags.starts_with("-Xms3072m -Xmx6144m -XX:+UseG1GC "), "{flags}");
        assert!(!flags.contains("TieredStop"));
    }
}
