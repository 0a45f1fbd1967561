//! The routes.

mod access;
mod body;
mod calls;
mod chat;
mod completions;
mod listener;
mod models;
mod page;
mod responses;
mod scores;
mod slow;
mod stream;
mod texts;
mod tokens;

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cerebellum::chat::{CallNotation, ChatOptions, ChatTemplate};

use super::engine::Engine;
use super::metrics::Metrics;
use super::refusal::Refusal;
use super::wire::answer::now;
use super::wire::fields::Fields;
use crate::receipt::model_digest;

pub use access::Access;
pub use listener::{Stop, Stopped, serve};

/// How requests are answered.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// What the model is called.
    pub name: String,
    /// The model's file, for receipts.
    pub model_file: PathBuf,
    /// Who may ask.
    pub access: Access,
    /// The longest body of a request, in bytes.
    pub max_body: usize,
    /// The most connections.
    pub max_connections: usize,
    /// How long a request may take.
    pub deadline: Duration,
    /// How long requests on their way may take when the server is stopped.
    pub grace: Duration,
}

/// What all routes share.
pub struct Server {
    engine: Engine,
    metrics: Arc<Metrics>,
    options: ServerOptions,
    /// Looked for when it is first needed.
    template: OnceLock<Result<ChatTemplate, Refusal>>,
    /// How the model writes calls of tools: if nobody says whether it thinks, if it does not, and if it does. Found
    /// when it is first needed.
    notations: [OnceLock<Result<Option<CallNotation>, Refusal>>; 3],
    /// The digest of the model's file, computed when it is first needed.
    digest: OnceLock<Result<String, Refusal>>,
    started: u64,
    requests: AtomicU64,
}

impl Server {
    /// A server of an engine.
    pub fn new(engine: Engine, metrics: Arc<Metrics>, options: ServerOptions) -> Arc<Self> {
        Arc::new(Self {
            engine,
            metrics,
            options,
            template: OnceLock::new(),
            notations: Default::default(),
            digest: OnceLock::new(),
            started: now(),
            requests: AtomicU64::new(0),
        })
    }

    /// A name for an answer that no other has.
    fn id(&self, kind: &str) -> String {
        format!("{kind}-{:x}-{}", self.started, self.requests.fetch_add(1, Relaxed))
    }

    /// A name for a call of a tool: nine letters and digits, because some templates want just that.
    fn call_id(&self) -> String {
        let number = (self.started << 12) + self.requests.fetch_add(1, Relaxed);
        format!("{:09x}", number & 0xf_ffff_ffff)
    }

    /// Takes the parameter that says which model is asked.
    ///
    /// # Errors
    /// If it is another.
    fn check_model(&self, fields: &mut Fields) -> Result<(), Refusal> {
        let model: Option<String> = fields.take("model")?;
        let Some(other) = model.filter(|model| *model != self.options.name) else { return Ok(()) };
        let message = format!(
            "this server has the model {}, not {}",
            cerebellum::terminal::name(&self.options.name),
            cerebellum::terminal::name(&other)
        );
        let refusal = Refusal::with(StatusCode::NOT_FOUND, "model_not_found", message);
        Err(Refusal { param: Some("model".into()), ..refusal })
    }

    /// The digest of the model's file.
    ///
    /// # Errors
    /// If it cannot be read.
    fn digest(&self) -> Result<&str, Refusal> {
        let read = || model_digest(&self.options.model_file).map_err(Refusal::internal);
        let digest = self.digest.get_or_init(read);
        digest.as_deref().map_err(Clone::clone)
    }

    /// How the model is put conversations.
    ///
    /// # Errors
    /// If its file does not say so.
    fn template(&self) -> Result<&ChatTemplate, Refusal> {
        let find = || ChatTemplate::of(self.engine.model(), self.engine.tokenizer());
        let found = self.template.get_or_init(|| find().map_err(Refusal::from));
        found.as_ref().map_err(Clone::clone)
    }

    /// How the model writes calls of tools. `None` if its template knows none.
    ///
    /// # Errors
    /// Those of [`template`](Self::template), and of a lack of memory or threads.
    fn notation(&self, options: ChatOptions) -> Result<Option<&CallNotation>, Refusal> {
        let table = self.engine.tokenizer().table();
        let find = || Ok(self.template()?.call_notation(table, options)?);
        let found = self.notations[options.thinking.map_or(0, |thinks| 1 + usize::from(thinks))]
            .get_or_init(find);
        found.as_ref().map(Option::as_ref).map_err(Clone::clone)
    }
}

/// Does what takes a while, such as encoding a long text, where nobody waits for it but its own request.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Refusal::internal("a thread of a request has ended")))
}

/// All routes.
fn router(server: &Arc<Server>) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(page::openapi))
        .route("/v1/models", get(models::models))
        .route("/v1/models/{name}", get(models::model))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/responses", post(responses::responses))
        .route("/v1/embeddings", post(scores::embeddings))
        .route("/score", post(scores::score))
        .route("/classify", post(scores::classify))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(server), guard))
        .with_state(Arc::clone(server))
}

async fn not_found() -> Refusal {
    let message = "there is nothing at this path; GET /openapi.json lists what there is";
    Refusal::with(StatusCode::NOT_FOUND, "not_found", message)
}

async fn wrong_method() -> Refusal {
    let message = "this path takes another method; GET /openapi.json says which";
    Refusal::with(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
}

/// What happens before and after every request: who may ask, headers, counts.
async fn guard(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let access = &server.options.access;
    let asked = request.headers().clone();
    let is_preflight = Access::is_preflight(request.method(), &asked);
    let mut response = match access.check(request.uri(), &asked) {
        _ if is_preflight => preflight(),
        Err(refusal) => refusal.into_response(),
        Ok(()) => next.run(request).await,
    };
    let count = match response.status().as_u16() {
        429 => None,
        200..400 => Some(&server.metrics.answered),
        400..500 => Some(&server.metrics.refused),
        _ => Some(&server.metrics.failed),
    };
    if let Some(count) = count {
        count.fetch_add(1, Relaxed);
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    access.cors(&asked, headers);
    response
}

/// What a browser is told before a page of another origin asks. Whether that one may is said by `Access::cors`.
fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

async fn health(State(server): State<Arc<Server>>) -> Result<Response, Refusal> {
    if !server.engine.is_alive() {
        let message = "the engine has ended";
        return Err(Refusal::with(StatusCode::SERVICE_UNAVAILABLE, "unhealthy", message));
    }
    Ok(body::json(&serde_json::json!({ "status": "ok" })))
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, server.metrics.text()).into_response()
}
