//! See [`tidegate_fuzz::mqtt_codec`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::mqtt_codec::run(data));
