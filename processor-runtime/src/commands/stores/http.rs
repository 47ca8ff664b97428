//! Asks a worker over HTTP: one request, one connection, one JSON document, each bounded in time and in bytes.
//!
//! No redirect is followed and nothing is read from the environment: a request, with its token, goes to the address that it
//! was made for and nowhere else.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use processor_core::protocol::client_id::HttpAddress;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::commands::CommandError;

/// How long a connection may take.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long an answer may take: the worker reads for half a second, and waits two for the group's coordinator.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// The most bytes of an answer: a page of 1 MiB of stored bytes is larger as JSON.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The most bytes of a file with a token.
const TOKEN_FILE_BYTES_MAX: u64 = 4 << 10;

/// Asks workers.
pub(super) struct Client {
    /// Always there, until the end.
    runtime: Option<Runtime>,
}

/// What a request shows of who asks. It is never shown to anybody else.
#[derive(Debug)]
pub(super) struct Bearer(HeaderValue);

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long the worker wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Value,
}

impl Answer {
    /// The sentence of a refusal.
    pub(super) fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or("it gives no reason")
    }
}

impl Bearer {
    /// Reads the token of a file; white space around it does not count.
    pub(super) fn read(path: &Path) -> Result<Self, CommandError> {
        use std::io::Read;
        let mut text = String::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text));
        read.map_err(|error| {
            CommandError::Misused(format!("the token file {} cannot be read: {error}", path.display()))
        })?;
        let value = HeaderValue::from_str(&format!("Bearer {}", text.trim()));
        let mut value = value.ok().filter(|_| !text.trim().is_empty()).ok_or_else(|| {
            CommandError::Misused(format!(
                "the token file {} must hold one line of printable characters: the one of the worker's http.token.file",
                path.display()
            ))
        })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl Client {
    pub(super) fn new() -> Result<Self, CommandError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// Why there is no answer: one sentence.
    pub(super) fn get(&self, at: &HttpAddress, path: &str, bearer: Option<&Bearer>) -> Result<Answer, String> {
        let runtime = self.runtime.as_ref().expect("it is there until the end");
        runtime.block_on(get(at, path, bearer)).map_err(|why| format!("http://{at} {why}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A look-up of a name can hang in the system's resolver, and nobody waits for it any more.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

async fn get(at: &HttpAddress, path: &str, bearer: Option<&Bearer>) -> Result<Answer, String> {
    let connected = within(CONNECT_WAIT, TcpStream::connect(at.to_string())).await;
    let stream = connected
        .map_err(|why| format!("cannot be reached: {why}; does the worker run, and listen there (http.listen)?"))?;
    within(ANSWER_WAIT, answer(stream, at, path, bearer)).await.map_err(|why| format!("does not answer: {why}"))
}

async fn answer(
    stream: TcpStream,
    at: &HttpAddress,
    path: &str,
    bearer: Option<&Bearer>,
) -> Result<Answer, Box<dyn std::error::Error>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::get(path).header(header::HOST, at.to_string()).header(header::CONNECTION, "close");
    if let Some(Bearer(value)) = bearer {
        request = request.header(header::AUTHORIZATION, value);
    }
    let (head, body) = sender.send_request(request.body(Body::empty())?).await?.into_parts();
    let body = to_bytes(Body::new(body), ANSWER_BYTES_MAX).await?;
    connection.abort();
    let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = serde_json::from_slice(&body)
        .map_err(|_| format!("what it says is no JSON ({}): is it a worker?", head.status))?;
    Ok(Answer { status: head.status, retry_after: retry_after.map(Duration::from_secs), body })
}

async fn within<T, E: fmt::Display>(wait: Duration, work: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(wait, work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("nothing came within {wait:?}")),
    }
}

/// A part of a path or of a query: every byte that could mean something else is escaped.
pub(super) fn escaped(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Asks one that answers every request with these bytes and hangs up; what it was asked, and the answer.
    fn asked(answer: &'static [u8], bearer: Option<&Bearer>) -> (String, Result<Answer, String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = HttpAddress::from(listener.local_addr().expect("it has an address"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody asks");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a whole request");
                request.extend(byte);
            }
            stream.write_all(answer).expect("it reads");
            String::from_utf8(request).expect("text")
        });
        let client = Client::new().expect("a runtime");
        let answer = client.get(&at, "/stores?a=b", bearer);
        (server.join().expect("it ends"), answer)
    }

    #[test]
    fn an_answer_has_its_status_its_patience_and_its_body() {
        let busy =
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 14\r\n\r\n{\"error\":\"no\"}";
        let (request, answer) = asked(busy, None);
        let answer = answer.expect("it answers");
        assert_eq!(
            (answer.status, answer.retry_after),
            (StatusCode::SERVICE_UNAVAILABLE, Some(Duration::from_secs(2)))
        );
        assert_eq!(answer.error(), "no");
        assert!(
            request.starts_with("GET /stores?a=b HTTP/1.1\r\n") && request.contains("host: 127.0.0.1:"),
            "{request}"
        );
        assert!(!request.contains("authorization"), "{request}");
    }

    #[test]
    fn a_token_is_sent_where_it_is_to_go_and_shown_nowhere() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), " abcdefgh12345678\n").expect("it can be written");
        let bearer = Bearer::read(file.path()).expect("a token");
        let (request, _) = asked(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Some(&bearer));
        assert!(request.contains("authorization: Bearer abcdefgh12345678\r\n"), "{request}");
        assert!(!format!("{:?}", bearer.0).contains("abcdefgh"));
        for wrong in ["", " \n", "two\nlines", "\u{7f}"] {
            std::fs::write(file.path(), wrong).expect("it can be written");
            assert!(Bearer::read(file.path()).is_err(), "{wrong:?}");
        }
        assert!(matches!(Bearer::read(Path::new("/nothing/here")), Err(CommandError::Misused(_))));
    }

    #[test]
    fn who_is_no_worker_is_told_apart() {
        let (_, answer) = asked(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", None);
        assert!(answer.expect_err("no JSON").contains("is it a worker?"));
        let (_, answer) = asked(b"SSH-2.0-OpenSSH_9.2\r\n", None);
        assert!(answer.expect_err("no HTTP").contains("does not answer"));
        let (_, answer) = asked(b"", None);
        assert!(answer.expect_err("it hangs up").contains("does not answer"));
        let client = Client::new().expect("a runtime");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let refused = client.get(&HttpAddress::from(free), "/", None).expect_err("nobody listens");
        assert!(refused.contains("cannot be reached") && refused.contains("http.listen"), "{refused}");
    }

    #[test]
    fn a_redirect_is_an_answer_and_leads_nowhere() {
        let (_, answer) =
            asked(b"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\nContent-Length: 2\r\n\r\n{}", None);
        assert_eq!(answer.expect("it answers").status, StatusCode::FOUND);
    }

    #[test]
    fn whatever_a_key_holds_stays_in_its_part_of_the_path() {
        assert_eq!(escaped("a/b ?ä&%#"), "a%2Fb%20%3F%C3%A4%26%25%23");
        assert_eq!(escaped("sensor-1.a_b~"), "sensor-1.a_b~");
    }
}
