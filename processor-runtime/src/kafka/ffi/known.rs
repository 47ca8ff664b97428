//! What librdkafka knows of its own properties.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::LazyLock;

use rdkafka::bindings as rd;

use super::{Conf, text};

/// Properties that a dump of the defaults leaves out, because they have none or are other names: of these people write.
const UNDUMPED: &[&str] = &[
    "acks",
    "client.rack",
    "compression.type",
    "debug",
    "delivery.timeout.ms",
    "linger.ms",
    "message.max.bytes",
    "retries",
    "sasl.mechanism",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
];

/// Whether a value fits a property, without making a client.
///
/// # Errors
/// librdkafka's own words, which may hold the value.
pub(in crate::kafka) fn check_property(name: &str, value: &str) -> Result<(), String> {
    Conf::new().set(name, value)
}

/// Whether there is a property of this name.
pub(in crate::kafka) fn knows_property(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    let (conf, mut words) = (Conf::new(), [0; 128]);
    // SAFETY: the configuration and the name are alive, the buffer has the length given; no value means the default, or
    // another error than that of an unknown name.
    let result = unsafe { rd::rd_kafka_conf_set(conf.0, name.as_ptr(), ptr::null(), words.as_mut_ptr(), words.len()) };
    result != rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_UNKNOWN
}

/// The names of the properties, to find the one that was meant; not those that nearly nobody sets.
pub(in crate::kafka) fn property_names() -> &'static [String] {
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(read_names);
    &NAMES
}

fn read_names() -> Vec<String> {
    let mut names: Vec<String> = UNDUMPED.iter().map(|name| (*name).to_owned()).collect();
    // Every second text of a dump is a name, and a value follows it.
    let mut collect = |dump: *mut *const c_char, count: usize| {
        // SAFETY: a dump is an array of `count` strings that lives until it is freed, once, here.
        unsafe {
            names.extend(std::slice::from_raw_parts(dump, count).iter().step_by(2).map(|name| text(*name)));
            rd::rd_kafka_conf_dump_free(dump, count);
        }
    };
    let conf = Conf::new();
    let mut count = 0;
    // SAFETY: the configurations are alive through the calls; that of topics is freed here, once. A dump is never null.
    unsafe {
        let dump = rd::rd_kafka_conf_dump(conf.0, &raw mut count);
        collect(dump, count);
        let topic = rd::rd_kafka_topic_conf_new();
        let dump = rd::rd_kafka_topic_conf_dump(topic, &raw mut count);
        collect(dump, count);
        rd::rd_kafka_topic_conf_destroy(topic);
    }
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_is_proposed_exists() {
        assert!(property_names().len() > 100, "the dump holds the properties with defaults");
        for name in property_names() {
            assert!(knows_property(name), "{name}");
        }
        assert!(!knows_property("lingering.ms") && !knows_property(""));
    }
}
