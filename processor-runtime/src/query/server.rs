//! The listener: one thread, bounded in connections, in the size of a request, and in how long a slow client may take.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::answer::Refusal;
use super::{Shown, Token, router};

/// The most connections at a time; the next one waits.
const CONNECTIONS_MAX: usize = 64;
/// The most threads that read state at a time.
const READERS_MAX: usize = 4;
/// The most bytes of a request's line and headers.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// How long a client is waited for.
const PATIENCE: Patience = Patience {
    request: Duration::from_secs(10),
    connection: Duration::from_mins(1),
    last_answer: Duration::from_secs(10),
};
/// How long to wait where the operating system gives no more connections.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often observations are sorted into their buckets.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// How long a client is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until it has sent a request; where a connection is kept open, until the next one.
    pub(super) request: Duration,
    /// Then a connection is closed behind the answer in hand, and the client makes a new one.
    pub(super) connection: Duration,
    /// Until that answer is read.
    pub(super) last_answer: Duration,
}

/// The HTTP server of a worker. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens, and shows from now on.
    ///
    /// # Errors
    /// What is wrong with the address, and what would be right.
    pub fn start(address: SocketAddr, token: Option<Token>, shown: Shown) -> Result<Self, String> {
        Self::start_with(address, token, shown, PATIENCE)
    }

    pub(super) fn start_with(
        address: SocketAddr,
        token: Option<Token>,
        shown: Shown,
        patience: Patience,
    ) -> Result<Self, String> {
        assert!(token.is_some() || address.ip().is_loopback(), "another address than loopback needs a token");
        let listener = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        });
        let (address, listener) = listener.map_err(|error| {
            format!(
                "http.listen={address} cannot be had ({error}): another worker on this machine may have it; choose another port, or 0 for a \
                 free one, which the log names"
            )
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(READERS_MAX)
            .thread_name("http-reader")
            .build()
            .map_err(|error| format!("the operating system gives nothing to wait for connections with: {error}"))?;
        let (stop, stopped) = oneshot::channel();
        let run = move || runtime.block_on(serve(listener, shown, token, patience, stopped));
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(run);
        let thread = thread.map_err(|error| format!("the operating system gives no thread: {error}"))?;
        tracing::info!("http://{address} shows health, metrics, tasks and stores");
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the HTTP thread had panicked; processing was not touched by it");
        }
    }
}

async fn serve(
    listener: TcpListener,
    shown: Shown,
    token: Option<Token>,
    patience: Patience,
    mut stop: oneshot::Receiver<()>,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("HTTP is not served: {error}"),
    };
    let shown = Arc::new(shown);
    tokio::spawn(keep_up(shown.clone()));
    let router = router(shown, token);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        tokio::select! {
            _ = &mut stop => return,
            accepted = accepted => match accepted {
                (place, Ok((stream, _))) => drop(tokio::spawn(connection(stream, router.clone(), patience, place))),
                (_, Err(error)) => {
                    tracing::debug!("a connection cannot be accepted: {error}");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, router: Router, patience: Patience, _place: OwnedSemaphorePermit) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.request)
        .max_buf_size(REQUEST_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    let mut ended = timeout(patience.connection, served.as_mut()).await;
    if ended.is_err() {
        served.as_mut().graceful_shutdown();
        ended = timeout(patience.last_answer, served).await;
    }
    if let Ok(Err(error)) = ended {
        tracing::debug!("a connection has ended: {error}");
    }
}

async fn keep_up(shown: Arc<Shown>) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    loop {
        every.tick().await;
        shown.metrics.upkeep();
    }
}

/// Does what may block on another thread, of which there are few.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!("a request has failed: {error}");
        Refusal::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            "the request has failed; the log of the worker says why",
        )
    })
}
