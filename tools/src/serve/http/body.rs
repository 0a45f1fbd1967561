//! Reading the body of a request.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::serve::refusal::Refusal;
use crate::serve::wire::fields::Fields;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// The parameters of a request, whose body has at most `most` bytes.
///
/// # Errors
/// If it is longer, takes too long or is no JSON object.
pub async fn fields(body: Body, most: usize) -> Result<Fields, Refusal> {
    Fields::parse(&read(body, most).await?)
}

async fn read(body: Body, most: usize) -> Result<Bytes, Refusal> {
    let read = tokio::time::timeout(PATIENCE, to_bytes(body, most)).await;
    let read = read.map_err(|_| {
        let message = "the body did not arrive in time";
        Refusal::with(StatusCode::REQUEST_TIMEOUT, "timeout", message)
    })?;
    // What else may be wrong with it is that the client went away, who will not read the answer.
    read.map_err(|_| {
        let message = format!("the body has more than {most} bytes; send less");
        Refusal::with(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    })
}

/// An answer of JSON.
pub fn json(answer: &impl Serialize) -> Response {
    let text = serde_json::to_string(answer).expect("an answer becomes JSON");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
