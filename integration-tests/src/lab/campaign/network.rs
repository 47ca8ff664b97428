//! A network of the campaign's own, in which packets to and from single ports can vanish, and nobody is told.
//!
//! It is a network namespace with nothing but loopback in it: the campaign enters it before it starts a thread or a
//! program, and all of these are in it then. What nftables drops there nobody else ever sees. Where that is not allowed,
//! the proxies stop passing bytes on, which looks the same to whoever waits for an answer; only a connection that is
//! opened meanwhile is accepted.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

use crate::proxy::Proxy;

/// Which packets vanish, as the workers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    Both,
    Requests,
    Answers,
}

impl Lost {
    pub(super) const ALL: [Self; 3] = [Self::Both, Self::Requests, Self::Answers];

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Both => "both ways",
            Self::Requests => "towards the broker",
            Self::Answers => "from the broker",
        }
    }

    fn requests(self) -> bool {
        self != Self::Answers
    }

    fn answers(self) -> bool {
        self != Self::Requests
    }
}

/// What packets can be dropped with.
#[derive(Clone, Debug)]
pub(super) enum Network {
    /// nftables, in a network namespace of our own.
    Own,
    /// The proxies; why not nftables.
    Shared(String),
}

impl Network {
    /// Goes into a network of our own, if that can be. To be called before any other thread is started.
    ///
    /// # Errors
    /// It is there and does not work.
    pub(super) fn enter() -> Result<Self> {
        for tool in ["nft", "ip"] {
            if Command::new(tool).arg("-V").output().is_err() {
                return Ok(Self::Shared(format!("{tool} is not installed (apt-get install nftables iproute2)")));
            }
        }
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return Ok(Self::Shared(format!("this user may not have a network of its own: {error}")));
        }
        tool("ip", "link set lo up")?;
        tool("nft", "add table inet campaign")?;
        tool("nft", "add chain inet campaign input { type filter hook input priority 0; }")?;
        Ok(Self::Own)
    }

    /// Lets packets between workers and these proxies vanish, until [`heal`](Self::heal).
    pub(super) fn part(&self, proxies: &[&Proxy], lost: Lost) -> Result<()> {
        for proxy in proxies {
            match self {
                Self::Shared(_) => proxy.stall(lost.requests(), lost.answers()),
                Self::Own => {
                    let ends = [("dport", lost.requests()), ("sport", lost.answers())];
                    for (end, _) in ends.into_iter().filter(|(_, lost)| *lost) {
                        tool("nft", &format!("add rule inet campaign input tcp {end} {} drop", proxy.port()))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Lets everything pass again.
    pub(super) fn heal(&self, proxies: &[&Proxy]) -> Result<()> {
        match self {
            Self::Shared(_) => proxies.iter().for_each(|proxy| proxy.stall(false, false)),
            Self::Own => tool("nft", "flush chain inet campaign input")?,
        }
        Ok(())
    }
}

fn tool(program: &str, arguments: &str) -> Result<()> {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments}: {}: {}", output.status, said.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpStream};
    use std::time::Duration;

    use super::*;

    /// In a thread of its own, as every test: the others stay in the network that they are in.
    #[test]
    fn packets_vanish_until_it_is_healed_and_nobody_is_told() {
        let network = Network::enter().expect("what may be had works");
        let proxy = Proxy::bind().expect("a free port");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.port()));
        let connects =
            || TcpStream::connect_timeout(&address, Duration::from_millis(300)).map_err(|error| error.kind());
        for lost in Lost::ALL {
            network.part(&[&proxy], lost).expect("it is parted");
            match &network {
                Network::Own => assert_eq!(connects().err(), Some(std::io::ErrorKind::TimedOut), "{lost:?}"),
                Network::Shared(why) => eprintln!("left out, for {why}"),
            }
            network.heal(&[&proxy]).expect("it is healed");
            connects().expect("packets arrive");
        }
    }
}
