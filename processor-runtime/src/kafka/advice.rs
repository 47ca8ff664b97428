//! What a person does about an error of the cluster, by its code: the last part of a message.
//!
//! Only what does not pass by itself has advice. Whoever reads it sees one line and not the protocol, so it names settings,
//! rights and commands.

use rdkafka::bindings::rd_kafka_resp_err_t as E;

use super::ffi::{Code, Fault};

const TOPIC: &str = "the application has no right to do that with this topic: `deploy/acls` prints the commands that grant \
                     all it needs (inputs: Read; outputs: Write; `<application.id>-`, prefixed: Read, Write, Create; all: \
                     DescribeConfigs)";
const GROUP: &str = "the application has no right to Read the group that has its application.id as name: `deploy/acls` \
                     prints the command that grants it";
const TRANSACTIONAL_ID: &str = "the application has no right to Write and Describe the transactional ids that begin with \
                                `<application.id>:`: `deploy/acls` prints the command that grants it";
const CLUSTER: &str = "the application has no right to do that with the cluster: topics that are missing can be made \
                       beforehand with `deploy/topics`, and `deploy/acls` prints the commands that grant what it needs";
const CREDENTIALS: &str = "the brokers do not take these credentials: correct sasl.mechanism, sasl.username and \
                           sasl.password (or sasl.oauthbearer.*), or make the user at the brokers";
const CERTIFICATE: &str = "ssl.ca.location must name the certificate of the authority that signed the brokers' certificates, \
                           these must be valid today, and hold each host name or address that brokers are reached by; where \
                           brokers ask for a certificate, ssl.certificate.location and ssl.key.location name one that they \
                           trust";
const NAME: &str = "correct the host in bootstrap.servers, or the brokers' advertised.listeners";
const TIMEOUT: &str = "lower transaction.timeout, or raise transaction.max.timeout.ms of the brokers";
const UNRELEASED: &str = "another worker has this instance.id, or an earlier life of this one was killed: its place is free when \
                          its session times out (group.consumer.session.timeout.ms of the brokers, 45 s), so start again then";
const OTHER_PROTOCOL: &str =
    "workers of this application run under another group.protocol: stop them all, and start them with one";
const OLD: &str = "the brokers do not know this request: group.protocol = consumer needs Kafka 4.0 with the protocol enabled \
                   (group.coordinator.rebalance.protocols)";
const REACH: &str = "are the brokers up, is the port in bootstrap.servers right, and does security.protocol fit what listens \
                     there?";

/// By code: what to do.
const BY_CODE: [(E, &str); 13] = [
    (E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, TOPIC),
    (E::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, GROUP),
    (E::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, TRANSACTIONAL_ID),
    (E::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, CLUSTER),
    (E::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED, CREDENTIALS),
    (E::RD_KAFKA_RESP_ERR__AUTHENTICATION, CREDENTIALS),
    (E::RD_KAFKA_RESP_ERR__SSL, CERTIFICATE),
    (E::RD_KAFKA_RESP_ERR__RESOLVE, NAME),
    (E::RD_KAFKA_RESP_ERR_UNRELEASED_INSTANCE_ID, UNRELEASED),
    (E::RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL, OTHER_PROTOCOL),
    (E::RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION, OLD),
    (E::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE, OLD),
    (E::RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT, TIMEOUT),
];

/// What to do about an error; nothing where it passes, or nobody knows.
pub(super) fn about(code: Code) -> Option<&'static str> {
    BY_CODE.iter().find(|(known, _)| Code::of(*known) == code).map(|(_, advice)| *advice)
}

/// A message, and what to do about it behind.
pub(super) fn with_advice(message: String, code: Code) -> String {
    match about(code) {
        Some(advice) => format!("{message}: {advice}"),
        None => message,
    }
}

/// What to do about brokers that cannot be reached, because of this. A broker that misses our certificate says so in an alert
/// that librdkafka counts among the broken connections.
pub(super) fn about_trouble(trouble: &Fault) -> &'static str {
    let of_certificate = trouble.message.contains("certificate").then_some(CERTIFICATE);
    about(trouble.code).or(of_certificate).unwrap_or(REACH)
}

/// Whether no broker will change its mind about it, so that waiting for an answer is in vain.
pub(super) fn is_final(code: Code) -> bool {
    code == Code::of(E::RD_KAFKA_RESP_ERR__AUTHENTICATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_must_mend_has_a_next_step_and_what_passes_has_none() {
        let of = |code: E| with_advice("no".to_owned(), Code::of(code));
        assert!(of(E::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED).contains("deploy/acls"));
        assert!(of(E::RD_KAFKA_RESP_ERR__AUTHENTICATION).contains("sasl.password"));
        assert!(of(E::RD_KAFKA_RESP_ERR__SSL).contains("ssl.ca.location"));
        assert_eq!(of(E::RD_KAFKA_RESP_ERR_NOT_COORDINATOR), "no");
        assert_eq!(of(E::RD_KAFKA_RESP_ERR__TRANSPORT), "no", "a connection is made again");
        let broken = |words: &str| about_trouble(&Fault::bare(Code::of(E::RD_KAFKA_RESP_ERR__TRANSPORT), words));
        assert!(broken("Connection refused").contains("security.protocol"));
        assert!(broken("SSL routines::sslv3 alert bad certificate").contains("ssl.certificate.location"));
    }
}
