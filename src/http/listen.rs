//! Accepts connections and serves HTTP/1.1 on each, within limits of number and time.
//!
//! Not `axum::serve`: it has no timer, so that 500 of 500 connections which never finish a head
//! stay open, and it waits for an open stream for ever when it stops.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::guard::{Door, Peer};
use super::routes::router;
use super::under_way::UnderWay;
use super::write_timeout::WriteTimeout;
use super::{App, Bounds};
use crate::metrics::{Connection, Metrics, labels};

/// Connections that the system holds until they are accepted: what `listen` uses elsewhere.
const BACKLOG: u32 = 1024;
/// What the system keeps of an answer that its reader does not take, per connection. Linux would
/// otherwise keep megabytes, for which the engine would have to work.
const SEND_BUFFER_BYTES: u32 = 64 << 10;
/// What hyper keeps of it, and the most that one read takes.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// nginx takes 8 KiB and Apache 8 KiB a line; a cookie jar of a browser may be larger.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 100;
/// A spare connection has one question, and others wait for its place.
const SPARE_HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a connection that should close is asked whether it has anything left to do.
const CLOSING_INTERVAL: Duration = Duration::from_millis(50);
/// Pause after `accept` failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes the address. Connections wait in the system's queue until [`serve`] runs.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address.is_ipv4() {
        true => TcpSocket::new_v4()?,
        false => TcpSocket::new_v6()?,
    };
    // Connections of the last run may still be closing.
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown` comes; then answers what has been asked, and returns when all
/// connections are closed or their time is up.
pub async fn serve(listener: TcpListener, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let bounds = app.bounds.clone();
    let doors = Doors::new(&app);
    let (closing_sender, closing) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut is_accepting = true;
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            // Forgets those that have ended.
            Some(_) = connections.join_next() => (),
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    if !is_accepting {
                        tracing::info!("connections are accepted again");
                        is_accepting = true;
                    }
                    match doors.enter(Peer(address.ip())) {
                        Some(entry) => {
                            connections.spawn(serve_connection(stream, entry, bounds.clone(), closing.clone()));
                        }
                        // Not a warning: whoever fills the server would fill the log.
                        None => tracing::debug!("a connection too many was closed unheard"),
                    }
                }
                Err(error) => {
                    // Once: it is tried again twenty times a second.
                    if is_accepting {
                        tracing::warn!(%error, "cannot accept connections");
                        is_accepting = false;
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    if !connections.is_empty() {
        tracing::info!(connections = connections.len(), "closing what is open");
    }
    drop(closing_sender);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(bounds.closing_timeout, all).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections were cut");
    }
    connections.shutdown().await;
}

/// The limits of connections.
struct Doors {
    main: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    main_router: Router,
    spare_router: Router,
}

/// A connection's place among the others, given back when it ends.
struct Entry {
    door: Door,
    peer: Peer,
    router: Router,
    _place: OwnedSemaphorePermit,
    _counted: Connection,
}

impl Doors {
    fn new(app: &Arc<App>) -> Doors {
        Doors {
            main: Arc::new(Semaphore::new(app.bounds.connections)),
            spare: Arc::new(Semaphore::new(app.bounds.spare_connections)),
            metrics: Arc::clone(&app.metrics),
            main_router: router(app, Door::Main),
            spare_router: router(app, Door::Spare),
        }
    }

    fn enter(&self, peer: Peer) -> Option<Entry> {
        let enter = |door, places: &Arc<Semaphore>, router: &Router| {
            let place = Arc::clone(places).try_acquire_owned().ok()?;
            let counted = Connection::open(&self.metrics, label(door));
            Some(Entry { door, peer, router: router.clone(), _place: place, _counted: counted })
        };
        enter(Door::Main, &self.main, &self.main_router)
            .or_else(|| enter(Door::Spare, &self.spare, &self.spare_router))
    }
}

fn label(door: Door) -> labels::Door {
    match door {
        Door::Main => labels::Door::Main,
        Door::Spare => labels::Door::Spare,
    }
}

/// Ends with the connection, or after the answer under way once `closing` has no sender.
async fn serve_connection(
    stream: TcpStream,
    entry: Entry,
    bounds: Bounds,
    mut closing: watch::Receiver<()>,
) {
    // Tokens go out one by one, each as soon as it is there.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended before it began");
        return;
    }
    let under_way = UnderWay::default();
    let io = TokioIo::new(WriteTimeout::new(stream, bounds.write_timeout, under_way.clone()));
    let router = TowerToHyperService::new(entry.router);
    let service = service_fn(|mut request| {
        request.extensions_mut().insert(entry.peer);
        let counted = under_way.count();
        let answer = router.call(request);
        async move { answer.await.map(|answer| counted.answered(answer)) }
    });
    let mut connection = pin!(builder(entry.door, &bounds).serve_connection(io, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            loop {
                match tokio::time::timeout(CLOSING_INTERVAL, connection.as_mut()).await {
                    Ok(ended) => break ended,
                    // The beginning of a head, which is nothing yet.
                    Err(_) if under_way.is_none() => return,
                    Err(_) => (),
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection was lost");
    }
}

fn builder(door: Door, bounds: &Bounds) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    match door {
        Door::Main => builder.header_read_timeout(bounds.header_timeout),
        Door::Spare => builder
            .keep_alive(false)
            .header_read_timeout(bounds.header_timeout.min(SPARE_HEADER_TIMEOUT)),
    };
    builder
}
