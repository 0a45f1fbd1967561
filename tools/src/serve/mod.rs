//! A model for other programs, over HTTP: `cerebellum serve`.
//!
//! `engine` runs the model and knows nothing of HTTP; `wire` has the JSON of requests and answers; `http` has
//! the routes, the limits and the listener. `docs/serve.md` describes all of it.

pub mod engine;
pub mod http;
pub mod memory;
pub mod metrics;
mod refusal;
mod wire;

use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use cerebellum::Model;

use self::engine::{Engine, EngineOptions};
use self::http::{Server, ServerOptions, Stopped};
use self::metrics::Metrics;

/// A server whose port is open.
pub struct Bound {
    server: Arc<Server>,
    listener: TcpListener,
}

impl Bound {
    /// Starts the engine, then opens the port.
    ///
    /// # Errors
    /// Those of [`Engine::start`]; if the port cannot be had.
    pub fn new(
        model: Model,
        engine: EngineOptions,
        options: ServerOptions,
        address: SocketAddr,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let metrics = Arc::new(Metrics::default());
        let engine = Engine::start(model, engine, Arc::clone(&metrics))?;
        let listener = TcpListener::bind(address)
            .map_err(|error| format!("cannot open {address}: {error}; give another --address"))?;
        listener.set_nonblocking(true)?;
        Ok(Self { server: Server::new(engine, metrics, options), listener })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests until it is asked to stop. False if requests on their way did not end in time.
    ///
    /// # Errors
    /// If the engine has ended.
    pub fn run(self, stopped: Stopped) -> io::Result<bool> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let done = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            http::serve(self.server, listener, stopped).await
        });
        // What a request had begun on another thread has nobody to wait for it.
        runtime.shutdown_background();
        done
    }
}
