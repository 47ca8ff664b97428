//! The metadata of a committed offset, and a member's client id: whoever may commit or join can write anything there.

#![no_main]

// For its allocator.
use processor_fuzz as _;

use libfuzzer_sys::fuzz_target;
use processor_core::protocol::client_id::ClientId;
use processor_core::protocol::metadata::OffsetMetadata;

fuzz_target!(|text: &str| {
    let _ = ClientId::parse(text);
    let Ok(metadata) = OffsetMetadata::parse(text) else { return };
    let mut written = String::new();
    metadata.write(&mut written);
    assert_eq!(
        OffsetMetadata::parse(&written).as_ref(),
        Ok(&metadata),
        "what was read is written and read as the same"
    );
});
