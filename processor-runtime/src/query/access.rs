//! Who may ask: whoever has the token, or, where there is none, whoever is on this machine and asks for it by its name.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::answer::{Refusal, excerpt};

/// A shorter one could be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// A longer one does not fit into a header together with the rest.
const TOKEN_BYTES_MAX: usize = 1_024;

/// What a request must carry as `Authorization: Bearer <token>`: 16 to 1024 printable ASCII characters without
/// spaces. It is never shown.
///
/// ```
/// use processor_runtime::query::Token;
///
/// let dir = tempfile::tempdir()?;
/// let file = dir.path().join("token");
/// std::fs::write(&file, "0123456789abcdef0123456789abcdef\n")?; // openssl rand -hex 32
/// let token = Token::read(&file)?;
/// assert_eq!(format!("{token:?}"), "Token");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Token(Arc<[u8]>);

impl Token {
    /// Reads it from a file; white space around it does not count.
    ///
    /// ```
    /// use processor_runtime::query::Token;
    ///
    /// let dir = tempfile::tempdir()?;
    /// let file = dir.path().join("token");
    /// std::fs::write(&file, "  0123456789abcdef\n")?;
    /// assert!(Token::read(&file).is_ok());
    /// std::fs::write(&file, "hunter2")?; // it could be guessed
    /// assert!(Token::read(&file).unwrap_err().contains("must hold 16 to 1024"));
    /// assert!(Token::read(&dir.path().join("none")).unwrap_err().contains("cannot be read"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// What is wrong with the file, which the text names: it cannot be read, or holds a token that is too short or too
    /// long, or has other characters.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("http.token.file cannot be read ({}): {error}", path.display()))?;
        Self::new(text.trim()).map_err(|why| format!("http.token.file ({}) {why}", path.display()))
    }

    pub(super) fn new(text: &str) -> Result<Self, String> {
        let legal = text.bytes().all(|byte| byte.is_ascii_graphic());
        if legal && (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len()) {
            return Ok(Self(text.as_bytes().into()));
        }
        Err(format!(
            "must hold {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} printable ASCII characters without spaces: make one with openssl rand -hex 32"
        ))
    }

    /// Takes as long for a wrong token as for the right one; only the length shows.
    fn is(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Lets through who has the token.
pub(super) async fn require_token(State(token): State<Arc<Option<Token>>>, request: Request, next: Next) -> Response {
    match &*token {
        Some(token) if !bears(request.headers(), token) => {
            let sentence = "this needs the token of the worker: send the header 'Authorization: Bearer <token>', with what stands in the file \
                            of http.token.file";
            let mut response = Refusal::new(StatusCode::UNAUTHORIZED, sentence).into_response();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            response
        }
        Some(_) | None => next.run(request).await,
    }
}

fn bears(headers: &HeaderMap, token: &Token) -> bool {
    let given = headers.get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes);
    let given = given.and_then(|value| value.split_first_chunk::<7>());
    given.is_some_and(|(scheme, given)| scheme.eq_ignore_ascii_case(b"bearer ") && token.is(given))
}

/// A page on the internet can make a browser on this machine ask us, under a name of its own that leads here (DNS
/// rebinding). Without a token, only names of this machine are answered.
pub(super) async fn require_own_name(
    State(token): State<Arc<Option<Token>>>,
    request: Request,
    next: Next,
) -> Response {
    let host = request.headers().get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    match host {
        Some(host) if token.is_none() && !is_loopback(&host) => {
            let sentence = format!(
                "without a token this worker answers requests to localhost only, not to '{}': use http://127.0.0.1, or set http.token.file",
                excerpt(&host)
            );
            Refusal::new(StatusCode::FORBIDDEN, sentence).into_response()
        }
        Some(_) | None => next.run(request).await,
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.9.9.9:8080", "[::1]", "[::1]:8080"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "[::2]:80"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_token_that_could_be_guessed_is_refused_and_none_is_shown() {
        for text in ["", "short", "has a space in it, but is long", "ünprintable in ascii", &"x".repeat(1_025)] {
            assert!(Token::new(text).is_err(), "{text}");
        }
        let token = Token::new("0123456789abcdef").expect("long enough");
        assert!(!format!("{token:?}").contains("0123"));
        assert!(token.is(b"0123456789abcdef") && !token.is(b"0123456789abcdeg") && !token.is(b"0123456789abcde"));
    }
}
