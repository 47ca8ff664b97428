//! Asks a worker over HTTP, with the least that can ask: one request, one connection, the answer as it came.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, as they came.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }
}

/// Asks for a path; `headers` are whole lines.
///
/// # Errors
/// Nobody answers, or not in HTTP.
pub fn get(address: &str, path: &str, headers: &[&str]) -> Result<Answer> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("nobody listens on {address}"))?;
    stream.set_read_timeout(Some(ANSWER_WAIT)).context("a time-out can be set")?;
    let lines: String = headers.iter().flat_map(|line| [*line, "\r\n"]).collect();
    // HTTP/1.0: the answer comes in one piece, and its end is the connection's.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n{lines}\r\n").context("cannot ask")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("no answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer in HTTP: {answer}"))?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status: {head}"))?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// The value of a series in Prometheus' text format; `None`: it is not there.
///
/// # Errors
/// The worker does not answer.
pub fn series(address: &str, name: &str) -> Result<Option<f64>> {
    let answer = get(address, "/metrics", &[])?;
    ensure!(answer.status == 200, "{}", answer.body);
    let line = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.and_then(|value| value.parse().ok()))
}
