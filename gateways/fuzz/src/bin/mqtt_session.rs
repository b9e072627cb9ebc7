//! See [`tidegate_fuzz::mqtt_session`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::mqtt_session::run(data));
