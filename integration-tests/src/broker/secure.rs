//! A Kafka with the listeners of a cluster that trusts nobody: TLS with SCRAM, PLAIN, OAUTHBEARER or client certificates,
//! and an authorizer that grants nothing.
//!
//! Its certificates come from an authority that the test makes and throws away. The plaintext listener of the harness stays:
//! whoever uses it is a super user, so a test can make topics, grant rights and look at everything.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use super::{ClusterConfig, KafkaCluster, NodePorts, java, ports};

/// Logs in with SCRAM-SHA-512 or PLAIN, and has no right but those that are granted.
pub const USER: &str = "ledger";
/// Its password.
pub const PASSWORD: &str = "correct-horse-battery-staple";
/// A user that may do everything: logs in with PLAIN, by a certificate of this name, or with a token of this subject.
pub const SUPER_USER: &str = "boss";
/// The password of the super user.
pub const SUPER_PASSWORD: &str = "tr0ub4dor-and-3";

/// The running cluster, and what clients need to reach it.
#[derive(Debug)]
pub struct SecureCluster {
    /// The cluster; its own ports are those without security.
    pub kafka: KafkaCluster,
    dir: PathBuf,
    listeners: Listeners,
}

#[derive(Clone, Copy, Debug)]
struct Listeners {
    sasl: u16,
    tls: u16,
    oauth: u16,
    elsewhere: u16,
}

impl SecureCluster {
    /// Makes the certificates, starts one node and waits until it serves clients.
    pub fn start(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir: PathBuf = dir.into();
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let [node, first, second] = ports::free(3)?[..] else { unreachable!("three were asked for") };
        let listeners = Listeners {
            sasl: first.client,
            tls: first.controller,
            oauth: first.behind_proxy,
            elsewhere: second.client,
        };
        authority(&dir, "ca")?;
        authority(&dir, "stranger")?;
        certificate(&dir, "broker", Some("IP:127.0.0.1"))?;
        certificate(&dir, "elsewhere", Some("DNS:elsewhere.example"))?;
        certificate(&dir, SUPER_USER, None)?;
        let config = ClusterConfig {
            ports: Some(vec![node]),
            broker_properties: properties(&dir, node, listeners),
            format_arguments: vec![
                "--add-scram".to_owned(),
                format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]"),
            ],
            ..ClusterConfig::single(dir.join("kafka"))
        };
        let kafka = KafkaCluster::start(config)?;
        Ok(Self { kafka, dir, listeners })
    }

    /// Where users log in with SCRAM-SHA-512 or PLAIN over TLS.
    pub fn sasl_servers(&self) -> String {
        local(self.listeners.sasl)
    }

    /// Where clients show a certificate.
    pub fn tls_servers(&self) -> String {
        local(self.listeners.tls)
    }

    /// Where clients show a token, over TLS.
    pub fn oauth_servers(&self) -> String {
        local(self.listeners.oauth)
    }

    /// A listener whose certificate is for another host.
    pub fn servers_of_another_name(&self) -> String {
        local(self.listeners.elsewhere)
    }

    /// The certificate of the authority that signed the brokers' certificates.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The certificate of an authority that has signed nothing.
    pub fn stranger_ca(&self) -> PathBuf {
        self.dir.join("stranger.pem")
    }

    /// The super user's certificate, and its key.
    pub fn client_certificate(&self) -> (PathBuf, PathBuf) {
        (self.dir.join(format!("{SUPER_USER}.pem")), self.dir.join(format!("{SUPER_USER}.key")))
    }

    /// Runs a line of shell in which `kafka-acls` is Kafka's own program, in the directory `deploy`.
    pub fn shell(&self, line: &str) -> Result<()> {
        let programs = self.dir.join("bin");
        if !programs.exists() {
            fs::create_dir_all(&programs)?;
            let acls = programs.join("kafka-acls");
            fs::write(&acls, java::script("org.apache.kafka.tools.AclCommand")?)?;
            fs::set_permissions(&acls, fs::Permissions::from_mode(0o755))?;
        }
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let mut bash = Command::new("bash");
        bash.args(["-o", "pipefail", "-ec", line]).current_dir(deploy).env("PATH", path);
        completed(bash).map(drop)
    }
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Listeners, users and rights. They replace the harness's own listeners, because the last value wins.
fn properties(dir: &Path, node: NodePorts, listeners: Listeners) -> Vec<(String, String)> {
    let Listeners { sasl, tls, oauth, elsewhere } = listeners;
    let at = |name: &str, port: u16| format!("{name}://127.0.0.1:{port}");
    let advertised =
        [at("CLIENT", node.client), at("SASL", sasl), at("TLS", tls), at("OAUTH", oauth), at("ELSEWHERE", elsewhere)]
            .join(",");
    let file = |name: &str| dir.join(name).display().to_string();
    let jaas = |module: &str, options: &str| format!("org.apache.kafka.common.security.{module} required {options};");
    let properties = [
        ("listeners", format!("{advertised},{}", at("CONTROLLER", node.controller))),
        ("advertised.listeners", advertised),
        (
            "listener.security.protocol.map",
            "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,TLS:SSL,OAUTH:SASL_SSL,ELSEWHERE:SSL".to_owned(),
        ),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()),
        ("super.users", format!("User:ANONYMOUS;User:{SUPER_USER}")),
        ("ssl.keystore.type", "PEM".to_owned()),
        ("ssl.keystore.location", file("broker.store")),
        ("ssl.truststore.type", "PEM".to_owned()),
        ("ssl.truststore.location", file("ca.pem")),
        ("ssl.principal.mapping.rules", "RULE:^CN=([^,]+).*$/$1/,DEFAULT".to_owned()),
        ("listener.name.tls.ssl.client.auth", "required".to_owned()),
        ("listener.name.elsewhere.ssl.keystore.type", "PEM".to_owned()),
        ("listener.name.elsewhere.ssl.keystore.location", file("elsewhere.store")),
        ("listener.name.sasl.sasl.enabled.mechanisms", "SCRAM-SHA-512,PLAIN".to_owned()),
        ("listener.name.sasl.scram-sha-512.sasl.jaas.config", jaas("scram.ScramLoginModule", "")),
        (
            "listener.name.sasl.plain.sasl.jaas.config",
            jaas("plain.PlainLoginModule", &format!("user_{SUPER_USER}=\"{SUPER_PASSWORD}\"")),
        ),
        ("listener.name.oauth.sasl.enabled.mechanisms", "OAUTHBEARER".to_owned()),
        (
            "listener.name.oauth.oauthbearer.sasl.jaas.config",
            jaas("oauthbearer.OAuthBearerLoginModule", "unsecuredLoginStringClaim_sub=\"broker\""),
        ),
    ];
    properties.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// Makes an authority: its certificate in `<name>.pem`.
fn authority(dir: &Path, name: &str) -> Result<()> {
    request(dir, name, "basicConstraints=critical,CA:TRUE", &[])
}

/// Makes a certificate that the authority has signed: in `<name>.pem`, its key in `<name>.key`, both in `<name>.store`.
fn certificate(dir: &Path, name: &str, host: Option<&str>) -> Result<()> {
    let host = host.map_or(String::new(), |host| format!("\nsubjectAltName={host}"));
    let extensions = format!("basicConstraints=critical,CA:FALSE{host}");
    request(dir, name, &extensions, &["-CA", "ca.pem", "-CAkey", "ca.key"])?;
    let read = |kind: &str| fs::read_to_string(dir.join(format!("{name}.{kind}")));
    fs::write(dir.join(format!("{name}.store")), read("key")? + &read("pem")?).context("cannot write a key store")
}

fn request(dir: &Path, name: &str, extensions: &str, signer: &[&str]) -> Result<()> {
    let (settings, key, out) = (format!("{name}.cnf"), format!("{name}.key"), format!("{name}.pem"));
    let text = format!(
        "[req]\ndistinguished_name=name\nprompt=no\nx509_extensions=extensions\n[name]\nCN={name}\n[extensions]\n{extensions}\n"
    );
    fs::write(dir.join(&settings), text).context("cannot write the settings of a certificate")?;
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-config", &settings, "-keyout", &key, "-out", &out]).args(signer).current_dir(dir);
    completed(openssl).map(drop)
}

fn completed(mut command: Command) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}; install it with `./x setup`"))?;
    let said = || String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    ensure!(output.status.success(), "{program} failed ({}): {}", output.status, said());
    Ok(output)
}
