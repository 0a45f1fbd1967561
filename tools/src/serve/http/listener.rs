//! Connections: how many, how long their headers may take, and their end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Server, router};
use crate::serve::http::slow::Patient;

/// How long the headers of a request may take, and how long a connection may be idle.
const HEADER_TIME: Duration = Duration::from_secs(15);
/// Bytes of a request's line and headers.
const HEADER_BYTES: usize = 16 << 10;
/// The most headers.
const HEADERS: usize = 64;
/// How long it takes to tell clients that their texts were given up.
const FAREWELL: Duration = Duration::from_secs(2);
/// After a refused connection: the system lacks what it needs for one, and has to get it back first.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks a server to stop.
#[derive(Clone)]
pub struct Stop(watch::Sender<bool>);

/// Whether a server was asked to stop.
pub struct Stopped(watch::Receiver<bool>);

impl Stop {
    /// Both ends.
    pub fn new() -> (Self, Stopped) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stopped(receiver))
    }

    /// Asks the server to stop: no new connections, an end of those that are there.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Waits until the server is asked to stop, or nobody is there any more who could ask.
async fn stopped(mut receiver: watch::Receiver<bool>) {
    let _ = receiver.wait_for(|&is_stopped| is_stopped).await;
}

/// Answers what comes until the server is asked to stop. Then what is on its way has its time to end. False if
/// it had not ended by then.
///
/// # Errors
/// If the engine has ended.
pub async fn serve(
    server: Arc<Server>,
    listener: TcpListener,
    Stopped(receiver): Stopped,
) -> io::Result<bool> {
    let places = Arc::new(Semaphore::new(server.options.max_connections));
    let service = TowerToHyperService::new(router(&server));
    let mut connections = JoinSet::new();
    let mut is_alive = true;
    loop {
        let place = Arc::clone(&places);
        let accepted = async {
            let place = place.acquire_owned().await.expect("nobody closes it");
            (listener.accept().await, place)
        };
        tokio::select! {
            () = stopped(receiver.clone()) => break,
            () = sleep(Duration::from_secs(1)) => {
                is_alive = server.engine.is_alive();
                if !is_alive {
                    break;
                }
            }
            (accepted, place) = accepted => match accepted {
                Ok((stream, _)) => {
                    let (server, service) = (Arc::clone(&server), service.clone());
                    let receiver = receiver.clone();
                    connections.spawn(async move {
                        server.metrics.connections.fetch_add(1, Relaxed);
                        connection(stream, service, receiver).await;
                        server.metrics.connections.fetch_sub(1, Relaxed);
                        drop(place);
                    });
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    if !is_alive {
        return Err(io::Error::other("the engine has ended; its message is above"));
    }
    let all = async { while connections.join_next().await.is_some() {} };
    tokio::pin!(all);
    let in_time = timeout(server.options.grace, &mut all).await.is_ok();
    if !in_time {
        server.engine.abandon();
        let _ = timeout(FAREWELL, all).await;
    }
    Ok(in_time)
}

type Service = TowerToHyperService<axum::Router>;

/// Answers the requests of a connection. What goes wrong with it concerns nobody else.
async fn connection(stream: TcpStream, service: Service, receiver: watch::Receiver<bool>) {
    // Pieces of an answer are small, and are to arrive when they are made.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(Patient::new(stream)), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stopped(receiver) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
