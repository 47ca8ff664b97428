//! Asks a broker for its metadata, with the fewest bytes that Kafka's protocol allows.
//!
//! The harness speaks it directly so that a broker's readiness never depends on the client library under test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_BYTES_MAX: usize = 1 << 20;
const CORRELATION_ID: i32 = 7;

/// The brokers that the one on `port` tells clients about.
pub(super) fn live_brokers(port: u16) -> Result<Vec<u16>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let exchange = || -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.write_all(&metadata_request())?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        ensure!(length <= RESPONSE_BYTES_MAX, "a response of {length} bytes");
        let mut response = vec![0; length];
        stream.read_exact(&mut response)?;
        Ok(response)
    };
    let response = exchange().with_context(|| format!("the broker on {address} does not answer"))?;
    parse_metadata(&response).with_context(|| format!("what listens on {address} is not Kafka"))
}

/// Metadata, version 1, for no topic.
fn metadata_request() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&3_i16.to_be_bytes());
    body.extend_from_slice(&1_i16.to_be_bytes());
    body.extend_from_slice(&CORRELATION_ID.to_be_bytes());
    body.extend_from_slice(&(-1_i16).to_be_bytes());
    body.extend_from_slice(&0_i32.to_be_bytes());
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.append(&mut body);
    frame
}

fn parse_metadata(mut response: &[u8]) -> Result<Vec<u16>> {
    ensure!(take_i32(&mut response)? == CORRELATION_ID, "the answer is to another request");
    let brokers = take_i32(&mut response)?;
    (0..brokers).map(|_| parse_broker(&mut response)).collect()
}

fn parse_broker(response: &mut &[u8]) -> Result<u16> {
    let id = take_i32(response)?;
    let _host = take_string(response)?;
    let _port = take_i32(response)?;
    let _rack = take_string(response)?;
    u16::try_from(id).with_context(|| format!("broker id {id}"))
}

fn take_i32(bytes: &mut &[u8]) -> Result<i32> {
    Ok(i32::from_be_bytes(*take_chunk(bytes)?))
}

/// A length of -1 stands for no string.
fn take_string<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = i16::from_be_bytes(*take_chunk(bytes)?);
    let Some((string, rest)) = bytes.split_at_checked(usize::try_from(length).unwrap_or(0)) else {
        bail!("a string of {length} bytes, of which {} came", bytes.len())
    };
    *bytes = rest;
    Ok(string)
}

fn take_chunk<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N]> {
    let (chunk, rest) = bytes.split_first_chunk().context("the answer is too short")?;
    *bytes = rest;
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(rack: &[u8]) -> Vec<u8> {
        let broker = [&[0, 0, 0, 2, 0, 1, b'h', 0, 0, 0, 80][..], rack].concat();
        [&[0, 0, 0, 7, 0, 0, 0, 1][..], &broker, &[0, 0, 0, 2, 0, 0, 0, 0]].concat()
    }

    #[test]
    fn the_frame_states_its_own_length() {
        let frame = metadata_request();
        assert_eq!(frame[..4], ((frame.len() - 4) as u32).to_be_bytes());
    }

    #[test]
    fn brokers_with_and_without_a_rack_are_read() -> Result<()> {
        assert_eq!(parse_metadata(&response(&[255, 255]))?, [2]);
        assert_eq!(parse_metadata(&response(&[0, 1, b'r']))?, [2]);
        Ok(())
    }

    #[test]
    fn a_short_or_foreign_answer_is_an_error() {
        let whole = response(&[255, 255]);
        assert!(parse_metadata(&whole[..15]).is_err());
        assert!(parse_metadata(b"HTTP/1.1 400").is_err());
    }
}
