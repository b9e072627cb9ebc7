//! Fuzz targets: each a function from bytes to panics, so that the committed inputs also run as ordinary tests.
//!
//! A target is three things of one name: a module here with the function, a binary in `src/bin` that hands it to
//! libFuzzer, and a folder in `corpus`. How to build and run them is in `README.md`. No IO.

#[cfg(feature = "http")]
pub mod http_request;
#[cfg(feature = "mqtt")]
pub mod mqtt_codec;
#[cfg(feature = "mqtt")]
pub mod mqtt_session;

#[cfg(test)]
mod corpus {
    use std::path::Path;

    /// Runs a target on every committed input of its corpus.
    pub(crate) fn replay(name: &str, target: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut inputs = 0;
        for entry in std::fs::read_dir(folder).expect("the corpus is committed") {
            let bytes = std::fs::read(entry.expect("a readable folder").path()).expect("a readable input");
            target(&bytes);
            inputs += 1;
        }
        assert!(inputs > 0, "an empty corpus proves nothing");
    }
}
