//! `/v1/models`: the one model that there is.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::{Server, body};
use crate::serve::refusal::Refusal;
use crate::summary::Summary;

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: [Model<'a>; 1],
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// Positions of a request.
    context: usize,
    vocab_size: usize,
    parameters: u64,
    embedding_size: usize,
    /// Whether it answers in conversations.
    has_chat_template: bool,
}

fn describe(server: &Server) -> Model<'_> {
    let model = server.engine.model();
    let config = model.config();
    let summary = Summary::new(model.header(), model.layout(), model.file_bytes() as u64);
    Model {
        id: &server.options.name,
        object: "model",
        created: server.started,
        owned_by: "local",
        context: server.engine.context(),
        vocab_size: config.vocab_size,
        parameters: summary.parameters,
        embedding_size: config.n_embd,
        has_chat_template: server.template().is_ok(),
    }
}

/// All models.
pub async fn models(State(server): State<Arc<Server>>) -> Response {
    body::json(&List { object: "list", data: [describe(&server)] })
}

/// One by its name.
pub async fn model(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    if name != server.options.name {
        let message = "this server has no model of that name; GET /v1/models says which it has";
        return Err(Refusal::with(StatusCode::NOT_FOUND, "model_not_found", message));
    }
    Ok(body::json(&describe(&server)))
}
