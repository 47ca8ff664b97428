//! A provider of tokens (OIDC, client credentials): one HTTP request, one answer. Its tokens are not signed, which
//! Kafka's own validator for tests accepts.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

const LIFETIME: Duration = Duration::from_hours(1);

/// Where the provider listens. It lives as long as the process.
#[derive(Clone, Debug)]
pub struct TokenEndpoint {
    /// Its address.
    pub url: String,
}

impl TokenEndpoint {
    /// Gives tokens for `subject` to whoever knows the secret of the client.
    ///
    /// # Errors
    /// There is no free port.
    pub fn start(subject: &str, client_id: &str, secret: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let url = format!("http://{}/token", listener.local_addr().context("a listener has an address")?);
        let expected = format!("authorization: basic {}", base64(format!("{client_id}:{secret}").as_bytes(), STANDARD));
        let subject = subject.to_owned();
        thread::Builder::new().name("tokens".to_owned()).spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                // A client that goes away has its answer in its log.
                let _ = answer(stream, &expected, &subject);
            }
        })?;
        Ok(Self { url })
    }
}

fn answer(mut stream: TcpStream, expected: &str, subject: &str) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut is_known, mut length) = (false, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        is_known |= line.len() == expected.len()
            && line[..21].eq_ignore_ascii_case(&expected[..21])
            && line[21..] == expected[21..];
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    reader.take(length).read_to_end(&mut Vec::new())?;
    let (status, body) = if is_known {
        ("200 OK", format!("{{\"access_token\":\"{}\",\"token_type\":\"Bearer\"}}", token(subject)))
    } else {
        ("401 Unauthorized", "{\"error\":\"invalid_client\"}".to_owned())
    };
    let head = format!("content-type: application/json\r\ncontent-length: {}\r\nconnection: close", body.len());
    Ok(write!(stream, "HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}")?)
}

/// A token for this subject that nobody has signed.
fn token(subject: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    let (from, to) = (now.as_secs(), (now + LIFETIME).as_secs());
    let claims = format!("{{\"sub\":\"{subject}\",\"iat\":{from},\"exp\":{to}}}");
    format!("{}.{}.", base64(b"{\"alg\":\"none\"}", URL), base64(claims.as_bytes(), URL))
}

/// The last two characters of an alphabet, and whether what is encoded is filled up.
type Alphabet = (&'static [u8; 2], bool);
const STANDARD: Alphabet = (b"+/", true);
const URL: Alphabet = (b"-_", false);

fn base64(bytes: &[u8], (last, is_filled): Alphabet) -> String {
    let character = |six: u32| match six {
        0..26 => b'A' + six as u8,
        26..52 => b'a' + (six - 26) as u8,
        52..62 => b'0' + (six - 52) as u8,
        _ => last[(six - 62) as usize],
    };
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let three = chunk.iter().chain([0, 0].iter()).take(3).fold(0, |bits: u32, byte| (bits << 8) | u32::from(*byte));
        let shown = chunk.len() + 1;
        text.extend((0..shown).map(|place| character((three >> (18 - 6 * place)) & 63) as char));
        if is_filled {
            text.extend((shown..4).map(|_| '='));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_encoded_as_the_standard_says() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes(), STANDARD), text);
            assert_eq!(base64(bytes.as_bytes(), URL), text.trim_end_matches('='));
        }
        assert_eq!(
            (base64(&[0xfb, 0xff], STANDARD), base64(&[0xfb, 0xff], URL)),
            ("+/8=".to_owned(), "-_8".to_owned())
        );
    }
}
